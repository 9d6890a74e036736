"""Every key of a recipe changes something that a user can see.

A run leaves a trace: its rows, its log, its checkpoints, its model, or the reason why it was refused. For each key
there is a value here that leaves another trace than the recipe without it. A key without such a line fails the test.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import chdir
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import NoneType

import pytest
from draws import every

from stfit.commands.evaluate import evaluate
from stfit.commands.train import train
from stfit.errors import StfitError
from stfit.recipe.load import load_recipe
from stfit.recipe.recipe import Recipe
from stfit.recipe.type_tree import child_types, specs_in
from stfit.spec import Spec, union_members
from stfit.workflows.check.validate import load_and_validate

RECIPE = """\
model:
  base: {type: scratch, hidden_size: 8, num_layers: 1, num_heads: 2, vocab_size: 200}
  max_seq_length: 12
data: {dataset: ./rows.jsonl, format: triplet}
loss: multiple_negatives_ranking
train: {max_steps: 4, batch_size: 4, learning_rate: 0.01, device: cpu}
eval:
  - {type: similarity, name: pairs, dataset: ./rows.jsonl, split: train, columns: {label: share}}
"""

WORDS = "model.base={type: word_embeddings}"
DENSE = "model.layers=[{type: dense, out_features: 6}]"
CONVOLUTIONS = "model.token_layers=[{type: cnn, out_channels: 4}]"
RECURRENT = "model.token_layers=[{type: lstm, hidden_dim: 4, num_layers: 2}]"
WEIGHTED = "model.token_layers=[word_weights]"
BAG = ("~model.max_seq_length", "model.base={type: bag_of_words}", "model.layers=[{type: dense, out_features: 6}]")
LABELED = ("data.format=labeled_pair", "data.columns={label: share}", "loss=cosent")
BINARY = ("data.format=labeled_pair", "loss=contrastive")
CLASSES = ("data.format=labeled_pair", "loss=softmax")
TEXTS = ("data.format=labeled_text", "loss=batch_hard_triplet")
PAIRS = ("data.format=positive_pair",)
TRIPLETS = ("eval=[{type: triplet, name: kept, dataset: ./rows.jsonl, split: train}]",)
TABLES = """corpus: {dataset: ./rows.jsonl, columns: {id: year}},
queries: {dataset: ./rows.jsonl, columns: {id: year, text: anchor}},
relevant: {dataset: ./rows.jsonl, columns: {query: year, corpus: year}}"""
STUDENT = ("eval=[{type: mse, name: near, dataset: ./rows.jsonl, split: train, teacher: BERT}]",)
LOSS = ("eval=[{type: loss, name: loss, dataset: ./rows.jsonl, split: train}]",)
SEARCH = (f"eval=[{{type: retrieval, name: search, {TABLES}}}]",)
HEAP = (
    "eval=[{type: paraphrase_mining, name: heap, dataset: ./rows.jsonl, split: train}]",
    "eval.0.columns={anchor: word, positive: text}",
)
KINDS = (
    "eval=[{type: classification, name: kinds, dataset: ./rows.jsonl, split: 'train[50%:]'}]",
    "eval.0.train_split='train[:50%]'",
)
GATE = ("gate=[{metric: pairs/pearson_dot, against: base}]",)
CSV = ("data.dataset=./rows.csv",)
BEST = ("train.best=pairs/spearman_cosine", "train.learning_rate=0.0", "train.eval_every_steps=1")
PATIENT = ("train.best=pairs/spearman_dot", "train.eval_every_steps=1", "train.early_stopping.patience=1")
HARDNESS = ("loss.hardness_mode=all_negatives", "loss.hardness_strength=5.0")
HELD = ("data.holdout.rows=4",)
SEVERAL = (
    "~data",
    "~loss",
    "objectives=[{data: {dataset: ./rows.jsonl, format: triplet}, loss: triplet, weight: 1.0}, "
    "{data: {dataset: ./rows.jsonl, format: labeled_pair}, loss: softmax, weight: 1.0}]",
)
PUSH = ("push.repo=me/one",)
RERANKED = ("loss={type: margin_mse, teacher: {cross_encoder: RERANKER}}",)
SPREAD = ("loss=[multiple_negatives_ranking, global_orthogonal_regularization]",)
GUIDED = ("loss={type: gist, teacher: BERT}",)
TAUGHT = (
    "model.layers=[{type: dense, out_features: 32, activation: identity}]",
    "loss={type: embed_distill, teacher: BERT}",
)
COSINES = ("loss={type: teacher_cosine, teacher: BERT}",)
MARGINS = ("data.columns={label: share}", "loss=margin_mse")
CHOOSING = ("loss={type: distill_kl_div, teacher: BERT}",)

BASES = {"BERT": "bert", "BERT2": "electra", "QWEN3": "qwen3", "RERANKER": "reranker", "RERANKER2": "roberta-reranker"}

Change = str | tuple[str, ...]
"""Overrides; the last one is the change, and those before it are made in both runs."""

CHANGES: dict[str, Change] = {
    "version": "version=2",  # refused, by its own words
    "name": "name=other",
    "seed": "seed=1",
    "model.base": "model.base=BERT",
    "model.base[scratch].hidden_size": "model.base.hidden_size=16",
    "model.base[scratch].num_layers": "model.base.num_layers=2",
    "model.base[scratch].num_heads": "model.base.num_heads=4",
    "model.base[scratch].vocab_size": "model.base.vocab_size=100",
    "model.base[static].vectors": ("model.base={type: static}", "model.base.vectors=./vectors.txt"),
    "model.base[static].embedding_dim": ("model.base={type: static}", "model.base.embedding_dim=8"),
    "model.base[static].vocab_size": ("model.base={type: static}", "model.base.vocab_size=100"),
    "model.base[word_embeddings].vectors": (WORDS, "model.base.vectors=./vectors.txt"),
    "model.base[word_embeddings].embedding_dim": (WORDS, "model.base.embedding_dim=8"),
    "model.base[word_embeddings].vocab_size": (WORDS, "model.base.vocab_size=20"),
    "model.base[bag_of_words].vocab_size": (*BAG, "model.base.vocab_size=10"),
    "model.base[bag_of_words].weights": (*BAG, "model.base.weights=./weights.txt"),
    "model.base[bag_of_words].unknown_word_weight": (
        *BAG, "model.base.weights=./weights.txt", "model.base.unknown_word_weight=3.0"
    ),
    "model.base[bag_of_words].cumulative_term_frequency": (
        *BAG, "data.columns={anchor: echo}", "model.base.cumulative_term_frequency=false"
    ),
    "model.revision": "model.revision=main",
    "model.max_seq_length": "model.max_seq_length=4",
    "model.pooling": "model.pooling=max",
    "model.token_layers": "model.token_layers=[{type: cnn, out_channels: 4}]",
    "model.token_layers[cnn].out_channels": (CONVOLUTIONS, "model.token_layers.0.out_channels=6"),
    "model.token_layers[cnn].kernel_sizes": (CONVOLUTIONS, "model.token_layers.0.kernel_sizes=[3]"),
    "model.token_layers[lstm].hidden_dim": (WORDS, RECURRENT, "model.token_layers.0.hidden_dim=6"),
    "model.token_layers[lstm].num_layers": (WORDS, RECURRENT, "model.token_layers.0.num_layers=1"),
    "model.token_layers[lstm].dropout": (WORDS, RECURRENT, "model.token_layers.0.dropout=0.5"),
    "model.token_layers[lstm].bidirectional": (WORDS, RECURRENT, "model.token_layers.0.bidirectional=false"),
    "model.token_layers[word_weights].weights": (WEIGHTED, "model.token_layers.0.weights=./weights.txt"),
    "model.token_layers[word_weights].unknown_word_weight": (WEIGHTED, "model.token_layers.0.unknown_word_weight=3.0"),
    "model.token_layers[weighted_layer_pooling].layer_start": (
        "model.token_layers=[{type: weighted_layer_pooling, layer_start: 0}]", "model.token_layers.0.layer_start=1"
    ),
    "model.layers": "model.layers=[normalize]",
    "model.layers[dense].out_features": (DENSE, "model.layers.0.out_features=4"),
    "model.layers[dense].bias": (DENSE, "model.layers.0.bias=false"),
    "model.layers[dense].activation": (DENSE, "model.layers.0.activation=relu"),
    "model.layers[dropout].rate": ("model.layers=[dropout]", "model.layers.0.rate=0.5"),
    "model.prompts": 'model.prompts={query: "rain: "}',
    "model.default_prompt": ('model.prompts={extra: "rain: "}', "model.default_prompt=extra"),
    "model.similarity": "model.similarity=dot",
    "model.dropout": "model.dropout=0.5",
    "model.truncate_dim": "model.truncate_dim=4",
    "model.append_eos": ("model.base=QWEN3", "model.append_eos=false"),
    "model.attention": "model.attention=padded",
    "model.lora.rank": ("model.base=BERT", "model.lora.rank=2"),
    "model.lora.alpha": ("model.base=BERT", "model.lora={}", "model.lora.alpha=64"),
    "model.lora.dropout": ("model.base=BERT", "model.lora={}", "model.lora.dropout=0.5"),
    "model.lora.target": ("model.base=BERT", "model.lora={}", "model.lora.target=[query, value]"),
    "model.precision": ("model.base=BERT", "model.precision=bfloat16"),
    "data.dataset": "data.dataset=./more.jsonl",
    "data.config": "data.config=other",  # a file has none; nor the next two
    "data.files": "data.files=other.csv",
    "data.revision": "data.revision=main",
    "data.split": "data.split='train[:50%]'",
    "data.read.delimiter": (*CSV, 'data.read.delimiter=";"'),
    "data.read.quoting": (*CSV, "data.read.quoting=false"),
    "data.read.encoding": (*CSV, "data.read.encoding=latin-1"),
    "data.read.header": (*CSV, "data.read.header=false"),
    "data.columns": "data.columns={anchor: sentence2}",
    "data.prompts": ('model.prompts={query: "rain: ", extra: "tea: "}', "data.prompts={anchor: extra}"),
    "data.where": "data.where={label: 1}",
    "data.where.min": "data.where={year: {min: 2008}}",
    "data.where.max": "data.where={year: {max: 2008}}",
    "data.where.not": "data.where={year: {not: 2008}}",
    "data.where.present": "data.where={note: {present: true}}",
    "data.label_map": (*CLASSES, "data.columns={label: word}", "data.label_map={yes: 0, no: 1}"),
    "data.label_range": (*LABELED, "data.label_range=[0, 2]"),
    "data.shuffle": "data.shuffle=true",
    "data.limit": "data.limit=9",
    "data.max_per_row": ("data.columns={negative: 'others[*]'}", "data.max_per_row=1"),
    "data.format": "data.format=positive_pair",
    "data.holdout.fraction": "data.holdout.fraction=0.25",
    "data.holdout.rows": "data.holdout.rows=4",
    "data.holdout.by": (*HELD, "data.holdout.by=label"),
    "data.holdout.seed": (*HELD, "data.holdout.seed=7"),
    "data.drop_overlap": "data.drop_overlap=true",
    "data.streaming": ("model.base=BERT", "data.shuffle_buffer=8", "data.streaming=true"),
    "data.shuffle_buffer": ("model.base=BERT", "data.streaming=true", "data.shuffle_buffer=8"),
    "loss[contrastive].distance": (*BINARY, "loss.distance=euclidean"),
    "loss[contrastive].margin": (*BINARY, "loss.margin=1.5"),
    "loss[contrastive].size_average": (*BINARY, "loss.size_average=false"),
    "loss[contrastive].matryoshka_dims": (*BINARY, "loss.matryoshka_dims=[8, 4]"),
    "loss[online_contrastive].distance": (*BINARY, "loss=online_contrastive", "loss.distance=euclidean"),
    "loss[online_contrastive].margin": (*BINARY, "loss=online_contrastive", "loss.margin=1.5"),
    "loss[online_contrastive].matryoshka_dims": (*BINARY, "loss=online_contrastive", "loss.matryoshka_dims=[8, 4]"),
    "loss[softmax].concatenate_embeddings": (*CLASSES, "loss.concatenate_embeddings=false"),
    "loss[softmax].concatenate_difference": (*CLASSES, "loss.concatenate_difference=false"),
    "loss[softmax].concatenate_product": (*CLASSES, "loss.concatenate_product=true"),
    "loss[cosine_similarity].error": (*LABELED, "loss=cosine_similarity", "loss.error=l1"),
    "loss[cosine_similarity].transformation": (*LABELED, "loss=cosine_similarity", "loss.transformation=sigmoid"),
    "loss[cosine_similarity].matryoshka_dims": (*LABELED, "loss=cosine_similarity", "loss.matryoshka_dims=[8, 4]"),
    "loss[cosent].scale": (*LABELED, "loss.scale=5.0"),
    "loss[cosent].matryoshka_dims": (*LABELED, "loss.matryoshka_dims=[8, 4]"),
    "loss[angle].scale": (*LABELED, "loss=angle", "loss.scale=5.0"),
    "loss[angle].matryoshka_dims": (*LABELED, "loss=angle", "loss.matryoshka_dims=[8, 4]"),
    "loss[multiple_negatives_ranking].scale": "loss.scale=5.0",
    "loss[multiple_negatives_ranking].similarity": "loss.similarity=dot",
    "loss[multiple_negatives_ranking].directions": "loss.directions=[query_to_doc, doc_to_query]",
    "loss[multiple_negatives_ranking].partition": (
        "loss.directions=[query_to_doc, doc_to_query]", "loss.partition=per_direction"
    ),
    "loss[multiple_negatives_ranking].negatives": ("loss.negatives=in_batch",),
    "loss[multiple_negatives_ranking].false_negative_margin": ("loss.false_negative_margin=0.0",),
    "loss[multiple_negatives_ranking].hardness_mode": (*HARDNESS, "loss.hardness_mode=hard_negatives"),
    "loss[multiple_negatives_ranking].hardness_strength": (*HARDNESS, "loss.hardness_strength=9.0"),
    "loss[multiple_negatives_ranking].weight": "loss.weight=2.0",
    "loss[multiple_negatives_ranking].columns": "loss.columns=[anchor, positive]",
    "loss[multiple_negatives_ranking].n_dims_per_step": ("loss.matryoshka_dims=[8, 4]", "loss.n_dims_per_step=1"),
    "loss[multiple_negatives_ranking].precisions": "loss.precisions=[float32, binary]",
    "loss[multiple_negatives_ranking].matryoshka_dims": "loss.matryoshka_dims=[8, 4]",
    "loss[multiple_negatives_ranking].matryoshka_weights": (
        "loss.matryoshka_dims=[8, 4]", "loss.matryoshka_weights=[1.0, 3.0]"
    ),
    "loss[multiple_negatives_symmetric_ranking].directions": (
        "loss=multiple_negatives_symmetric_ranking", "loss.directions=[query_to_doc]"
    ),
    "loss[multiple_negatives_symmetric_ranking].partition": (
        "loss=multiple_negatives_symmetric_ranking", "loss.partition=joint"
    ),
    "loss[mega_batch_margin].positive_margin": (*PAIRS, "loss=mega_batch_margin", "loss.positive_margin=1.0"),
    "loss[mega_batch_margin].negative_margin": (*PAIRS, "loss=mega_batch_margin", "loss.negative_margin=-0.5"),
    "loss[mega_batch_margin].matryoshka_dims": (*PAIRS, "loss=mega_batch_margin", "loss.matryoshka_dims=[8, 4]"),
    "loss[triplet].distance": ("loss=triplet", "loss.distance=cosine"),
    "loss[triplet].margin": ("loss=triplet", "loss.margin=1.0"),
    "loss[triplet].matryoshka_dims": ("loss=triplet", "loss.matryoshka_dims=[8, 4]"),
    "loss[batch_hard_triplet].distance": (*TEXTS, "loss.distance=cosine"),
    "loss[batch_hard_triplet].margin": (*TEXTS, "loss.margin=1.0"),
    "loss[batch_hard_triplet].matryoshka_dims": (*TEXTS, "loss.matryoshka_dims=[8, 4]"),
    "loss[batch_all_triplet].distance": (*TEXTS, "loss=batch_all_triplet", "loss.distance=cosine"),
    "loss[batch_all_triplet].margin": (*TEXTS, "loss=batch_all_triplet", "loss.margin=1.0"),
    "loss[batch_all_triplet].matryoshka_dims": (*TEXTS, "loss=batch_all_triplet", "loss.matryoshka_dims=[8, 4]"),
    "loss[batch_hard_soft_margin_triplet].distance": (
        *TEXTS, "loss=batch_hard_soft_margin_triplet", "loss.distance=cosine"
    ),
    "loss[batch_hard_soft_margin_triplet].matryoshka_dims": (
        *TEXTS, "loss=batch_hard_soft_margin_triplet", "loss.matryoshka_dims=[8, 4]"
    ),
    "loss[batch_semi_hard_triplet].distance": (*TEXTS, "loss=batch_semi_hard_triplet", "loss.distance=cosine"),
    "loss[batch_semi_hard_triplet].margin": (*TEXTS, "loss=batch_semi_hard_triplet", "loss.margin=1.0"),
    "loss[batch_semi_hard_triplet].matryoshka_dims": (
        *TEXTS, "loss=batch_semi_hard_triplet", "loss.matryoshka_dims=[8, 4]"
    ),
    "loss[gist].teacher": (*GUIDED, "loss.teacher=BERT2"),
    "loss[gist].revision": (*GUIDED, "loss.revision=main"),
    "loss[gist].scale": (*GUIDED, "loss.scale=5.0"),
    "loss[gist].margin_strategy": (*GUIDED, "loss.margin=0.5", "loss.margin_strategy=relative"),
    "loss[gist].margin": (*GUIDED, "loss.margin=0.5"),
    "loss[gist].contrast_anchors": (*GUIDED, "loss.contrast_anchors=false"),
    "loss[gist].contrast_positives": (*GUIDED, "loss.contrast_positives=false"),
    "loss[gist].hardness_mode": (*GUIDED, *HARDNESS, "loss.hardness_mode=in_batch_negatives"),
    "loss[gist].hardness_strength": (*GUIDED, *HARDNESS, "loss.hardness_strength=9.0"),
    "loss[gist].matryoshka_dims": (*GUIDED, "loss.matryoshka_dims=[8, 4]"),
    "loss[embed_distill].teacher": (*TAUGHT, "loss.teacher=BERT2"),
    "loss[embed_distill].revision": (*TAUGHT, "loss.revision=main"),
    "loss[embed_distill].distance": (*TAUGHT, "loss.distance=l2"),
    "loss[embed_distill].target": (*TAUGHT, "loss.target=anchor"),
    "loss[embed_distill].matryoshka_dims": (*TAUGHT, "loss.matryoshka_dims=[32, 4]"),
    "loss[teacher_cosine].teacher": (*COSINES, "loss.teacher=BERT2"),
    "loss[teacher_cosine].revision": (*COSINES, "loss.revision=main"),
    "loss[teacher_cosine].matryoshka_dims": (*COSINES, "loss.matryoshka_dims=[8, 4]"),
    "loss[margin_mse].teacher": (*MARGINS, "~data.columns", "loss.teacher=BERT", "loss.teacher=BERT2"),
    "loss[margin_mse].revision": (*MARGINS, "~data.columns", "loss.teacher=BERT", "loss.revision=main"),
    "loss[margin_mse].similarity": (*MARGINS, "loss.similarity=cosine"),
    "loss[margin_mse].teacher.cross_encoder": (*RERANKED, "loss.teacher.cross_encoder=RERANKER2"),
    "loss[margin_mse].teacher.revision": (*RERANKED, "loss.teacher.revision=main"),
    "loss[margin_mse].teacher.query_template": (*RERANKED, "loss.teacher.query_template='rain {query}'"),
    "loss[margin_mse].teacher.document_template": (*RERANKED, "loss.teacher.document_template='rain {document}'"),
    "loss[margin_mse].teacher.max_seq_length": (*RERANKED, "loss.teacher.max_seq_length=5"),
    "loss[margin_mse].matryoshka_dims": (*MARGINS, "loss.matryoshka_dims=[8, 4]"),
    "loss[distill_kl_div].teacher": (*CHOOSING, "loss.teacher=BERT2"),
    "loss[distill_kl_div].revision": (*CHOOSING, "loss.revision=main"),
    "loss[distill_kl_div].similarity": (*CHOOSING, "loss.similarity=cosine"),
    "loss[distill_kl_div].temperature": (*CHOOSING, "loss.temperature=0.5"),
    "loss[distill_kl_div].student_temperature": (*CHOOSING, "loss.student_temperature=0.5"),
    "loss[distill_kl_div].teacher_temperature": (*CHOOSING, "loss.teacher_temperature=0.5"),
    "loss[distill_kl_div].matryoshka_dims": (*CHOOSING, "loss.matryoshka_dims=[8, 4]"),
    "loss[global_orthogonal_regularization].similarity": (*SPREAD, "loss.1.similarity=dot"),
    "loss[global_orthogonal_regularization].mean_weight": (*SPREAD, "loss.1.mean_weight=0.0"),
    "loss[global_orthogonal_regularization].second_moment_weight": (*SPREAD, "loss.1.second_moment_weight=0.0"),
    "loss[global_orthogonal_regularization].aggregation": (*SPREAD, "loss.1.aggregation=sum"),
    "loss[global_orthogonal_regularization].matryoshka_dims": (*SPREAD, "loss.1.matryoshka_dims=[8, 4]"),
    "loss": "loss=[multiple_negatives_ranking, global_orthogonal_regularization]",
    "objectives.loss": (*SEVERAL, "objectives.0.loss=[triplet, global_orthogonal_regularization]"),
    "objectives": (*SEVERAL, "objectives=[{data: {dataset: ./rows.jsonl, format: triplet}, loss: triplet}]"),
    "objectives.weight": (*SEVERAL, "objectives.0.weight=3.0"),
    "objectives.sampler": (*SEVERAL, "objectives.1.sampler=group_by_label"),
    "train.epochs": ("~train.max_steps", "train.epochs=2"),
    "train.max_steps": "train.max_steps=2",
    "train.batch_size": "train.batch_size=8",
    "train.mini_batch_size": "train.mini_batch_size=2",
    "train.mini_batch_tokens": "train.mini_batch_tokens=32",
    "train.accumulate_steps": "train.accumulate_steps=2",
    "train.learning_rate": "train.learning_rate=0.02",
    "train.layer_decay": "train.layer_decay=0.5",
    "train.warmup_ratio": "train.warmup_ratio=0.5",
    "train.warmup_steps": "train.warmup_steps=3",
    "train.schedule": "train.schedule=constant",
    "train.weight_decay": "train.weight_decay=0.5",
    "train.max_grad_norm": "train.max_grad_norm=0.001",
    "train.freeze": 'train.freeze=["*embeddings*"]',
    "train.precision": "train.precision=bfloat16",
    "train.sampler": ("data.columns={anchor: word}", "train.sampler=shuffle"),
    "train.shard": "train.shard=true",
    "train.device": "train.device=nowhere",
    "train.log_every_steps": "train.log_every_steps=1",
    "train.eval_every": "train.eval_every=1.0",
    "train.eval_every_steps": "train.eval_every_steps=3",
    "train.save_every": "train.save_every=0.5",
    "train.save_every_steps": "train.save_every_steps=3",
    "train.keep_checkpoints": "train.keep_checkpoints=1",
    "train.best": "train.best=pairs/pearson_cosine",
    "train.early_stopping.patience": (*BEST, "train.early_stopping.patience=3", "train.early_stopping.patience=1"),
    "train.early_stopping.min_delta": (*PATIENT, "train.early_stopping.min_delta=2.0"),
    "eval": "~eval",
    "eval.dataset": "eval.0.dataset=./more.jsonl",
    "eval.config": "eval.0.config=other",
    "eval.files": "eval.0.files=other.csv",
    "eval.revision": "eval.0.revision=main",
    "eval.split": "eval.0.split='train[:50%]'",
    "eval.columns": "eval.0.columns={label: share, sentence1: anchor}",
    "eval.prompts": ('model.prompts={query: "rain: "}', "eval.0.prompts={sentence1: query}"),
    "eval.where": "eval.0.where={year: {min: 2008}}",
    "eval.label_map": ("eval.0.columns={label: word}", "eval.0.label_map={yes: 0, no: 1}"),
    "eval.label_range": "eval.0.label_range=[0.5, 2]",
    "eval.shuffle": ("eval.0.limit=9", "eval.0.shuffle=true"),
    "eval.limit": "eval.0.limit=9",
    "eval.max_per_row": (*TRIPLETS, "eval.0.columns={negative: 'others[*]'}", "eval.0.max_per_row=1"),
    "eval.from": (*HELD, *TRIPLETS, "eval.0={type: triplet, name: kept, from: holdout}"),
    "eval.name": "eval.0.name=other",
    "eval.when": "eval.0.when=[end]",
    "eval[triplet].margin": (*TRIPLETS, "eval.0.margin=100.0"),
    "gate": "gate=[{metric: pairs/pearson_dot, min: 0.5}]",
    "gate.metric": (*GATE, "gate.0.metric=pairs/pearson_cosine"),
    "gate.min": "gate=[{metric: pairs/pearson_dot, min: 0.5}]",
    "gate.against": (*GATE, "gate.0.against=published"),
    "gate.min_gain": (*GATE, "gate.0.min_gain=0.5"),
    "gate.guard": ("eval.0.by=word", GATE[0].replace("pearson", "spearman"), "gate.0.guard=true"),
    "gate.over": (*GATE, "gate.0.over=seeds"),
    "eval.by": "eval.0.by=word",
    "eval.precisions": "eval.0.precisions=[int8]",
    "gate.confidence": (*GATE, "gate.0.confidence=null"),
    "eval[retrieval].corpus.dataset": (*SEARCH, "eval.0.corpus.dataset=./more.jsonl"),
    "eval[retrieval].corpus.config": (*SEARCH, "eval.0.corpus.config=other"),
    "eval[retrieval].corpus.files": (*SEARCH, "eval.0.corpus.files=other.csv"),
    "eval[retrieval].corpus.revision": (*SEARCH, "eval.0.corpus.revision=main"),
    "eval[retrieval].corpus.split": (*SEARCH, "eval.0.corpus.split='train[:50%]'"),
    "eval[retrieval].corpus.columns": (*SEARCH, "eval.0.corpus.columns={id: year, text: negative}"),
    "eval[retrieval].corpus.where": (*SEARCH, "eval.0.corpus.where={year: {min: 2008}}"),
    "eval[retrieval].k": (*SEARCH, "eval.0.k=[2]"),
    "eval[retrieval].metrics": (*SEARCH, "eval.0.metrics=[recall@50]"),
    "eval[retrieval].ignore_identical_ids": (*SEARCH, "eval.0.ignore_identical_ids=true"),
    "eval[reranking].k": ("eval=[{type: reranking, name: few, dataset: ./rows.jsonl, split: train}]", "eval.0.k=1"),
    "eval[paraphrase_mining].top_k": (*HEAP, "eval.0.top_k=1"),
    "eval[paraphrase_mining].transitive": (*HEAP, "eval.0.transitive=true"),
    "eval[mteb].task": "eval=[{type: mteb, task: SICK-R}]",
    "eval[mteb].tasks": "eval=[{type: mteb, tasks: [SICK-R, STSBenchmark]}]",
    "eval[mteb].prompts": "eval=[{type: mteb, task: SICK-R, prompts: {text: query}}]",
    "eval[mse].teacher": (*STUDENT, "eval.0.teacher=BERT2"),
    "eval[mse].teacher_revision": (*STUDENT, "eval.0.teacher_revision=main"),
    "eval[loss].format": (*LOSS, "eval.0.format=positive_pair"),
    "eval[loss].loss": (*LOSS, "eval.0.loss=triplet"),
    "eval[loss].batch_size": (*LOSS, "eval.0.batch_size=7"),
    "eval[nanobeir].languages": "eval=[{type: nanobeir, languages: [de]}]",
    "eval[nanobeir].datasets": "eval=[{type: nanobeir, datasets: [{dataset: me/nano}]}]",
    "eval[nanobeir].datasets.dataset": "eval=[{type: nanobeir, datasets: [{dataset: me/nano}]}]",
    "eval[nanobeir].datasets.revision": "eval=[{type: nanobeir, datasets: [{dataset: me/nano, revision: main}]}]",
    "eval[classification].train_split": (*KINDS, "eval.0.train_split='train[:25%]'"),
    "eval[classification].train_limit": (*KINDS, "eval.0.train_limit=3"),
    "eval[classification].methods": (*KINDS, "eval.0.methods=[knn]"),
    "eval[classification].k": (*KINDS, "eval.0.k=1"),
    "push.repo": (*PUSH, "push.repo=me/other"),
    "push.license": (*PUSH, "push.license=mit"),
    "push.language": (*PUSH, "push.language=[en]"),
    "push.samples": (*PUSH, "push.samples=2"),
}  # fmt: skip

ELSEWHERE = {
    "train.optimizer",  # has only one value so far
    "loss[mse].distance",  # has only one value
    "data.read.numbers",  # rows with such cells are refused without it: tests/data/test_examples.py
    "data.read.passage_words",  # of a folder of documents: tests/generation/test_generate.py
    "data.read.overlap_words",
    *(f"eval[nanobeir].{key}" for key in ("sets", "k", "metrics", "precisions", "prompts")),  # tests/hub/test_nanobeir
    "train.timeout_minutes",  # of several processes: tests/commands/test_processes.py
    "push.private",  # of a repository that push creates: tests/publish/test_push.py
    # What a tracker is told lies with the tracker, whose package is an extra: tests/commands/test_trackers.py
    "track",
    "track[wandb].project",
    "track[wandb].entity",
    "track[trackio].project",
    "track[trackio].space",
    "track[mlflow].experiment",
}
"""Keys whose effect no run can show."""

ONCE = ("matryoshka_weights", ".n_dims_per_step", "].weight", "].columns", "].precisions")
"""These work in one place, and are shown for one loss: tests/losses holds every loss to them."""


def keys_of(spec: type[Spec], path: str, choices: list[type[Spec]], seen: set[type[Spec]]) -> Iterator[str]:
    """Every key with a value of its own, as `section.key`, or `section[choice].key` for the choice that declares it.

    A section that stands in two places (`read`) is listed at the first.
    """
    for name, field in spec.model_fields.items():
        owner = next(parent for parent in spec.__mro__ if name in vars(parent).get("__annotations__", {}))
        if path in ("loss", "model.base") and owner not in choices:
            # What their base classes declare is shown for each choice, but not for variants of a choice.
            owner = next((parent for parent in reversed(spec.__mro__) if parent in choices), owner)
        choice = f"[{owner.tag()}]" if owner in choices else ""
        key = f"{path}{choice}.{field.alias or name}".lstrip(".")
        shape = union_members(field.annotation)
        inner = specs_in(shape + child_types(shape, 0) + child_types(shape, ""))
        if name != "type" and set(shape) - set(inner) - {NoneType}:
            yield key
        for section in inner:
            if section not in seen:
                seen.add(section)
                yield from keys_of(section, key, [each for each in inner if "type" in each.model_fields], seen)


KEYS = list(dict.fromkeys(keys_of(Recipe, "", [], set())))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A recipe with its data."""
    folder = tmp_path_factory.mktemp("every_key")
    (folder / "recipe.yaml").write_text(RECIPE)
    rows = [row(i) for i in range(16)]
    for name, kept in (("rows", rows), ("more", rows[3:] + rows[:5])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    (folder / "vectors.txt").write_text("about 1 0 2\nrain 0 1 1\non 2 2 0\n")
    (folder / "weights.txt").write_text("about 0.5\nrain 2\n")
    lines = [",".join(rows[0]), *(",".join(f'"{cell}"' for cell in row.values()) for row in rows)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


WORDS = ["rain", "bread", "train", "cat", "star", "song", "chess", "tea", "apple", "river", "café", "lamp", "fish"]


def row(i: int) -> dict:
    word, other, third = (WORDS[(i + step) % len(WORDS)] for step in (0, 5, 7))
    text = {
        "anchor": f"about {word}",
        "positive": f"on {word}s {i}",
        "negative": f"no {other}",
        "text": f"{word} {third}",
    }
    pair = {"sentence1": f"one {word}", "sentence2": f"two {other}s", "label": i % 2, "share": i % 5 / 4}
    return (
        text
        | pair
        | {
            "others": [f"{third} {i}", f"{other} or"],
            "word": ["no", "yes"][i % 2],
            "echo": f"{word} {word}",
            "year": 2000 + i,
            "note": "x" * (i % 3),
        }
    )


@pytest.fixture(scope="module")
def trace(folder, tiny_base) -> Callable[[tuple[str, ...]], object]:
    """Overrides -> all that a run with them leaves, or why it is refused."""

    @cache
    def run(overrides: tuple[str, ...]) -> object:
        with chdir(folder), pytest.MonkeyPatch.context() as patch:  # where the paths of overrides start
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # nobody asks whether push.repo may be
            return leave(overrides)

    def leave(overrides: tuple[str, ...]) -> object:
        runs = folder / f"runs{abs(hash(overrides))}"
        given = [
            re.sub("BERT2|BERT|QWEN3|RERANKER2|RERANKER", lambda found: str(tiny_base(BASES[found[0]])), each)
            for each in overrides
        ]
        try:
            loaded = load_recipe(folder / "recipe.yaml", given)
            examples = load_and_validate(loaded.recipe)
            for _ in train(loaded, runs):
                pass
        except StfitError as error:
            return str(error)
        run_folder = runs / loaded.recipe.name
        log = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
        gate = evaluate(str(run_folder), loaded.recipe)[0]["gate"] if loaded.recipe.gate else []
        return {
            "gate": gate,
            "name": loaded.recipe.name,
            "rows": [each.fingerprint for each in examples.training],
            "evaluated": [
                evaluator.examples_of(rows).fingerprint
                for evaluator, rows in zip(loaded.recipe.eval, examples.evaluation, strict=True)
            ],
            "log": [
                {key: value for key, value in line.items() if key not in ("seconds", "spent", "peak_rss_mib")}
                for line in log
            ],
            "checkpoints": sorted(path.name for path in (run_folder / "checkpoints").glob("*")),
            "model": {
                path.name: sha256(path.read_bytes()).hexdigest()
                for path in sorted((run_folder / "model").rglob("*"))
                if path.is_file() and path.name != "README.md"
            },
            "card": re.sub(r"steps in .*", "", (run_folder / "model" / "README.md").read_text()),
        }

    return run


def test_every_key_has_a_line_here():
    own = "loss[multiple_negatives_ranking]"
    shown = {key for key in KEYS if key.startswith(own) or not (key.startswith("loss[") and key.endswith(ONCE))}
    assert shown - ELSEWHERE == set(CHANGES)


@pytest.mark.parametrize("key", every(8, CHANGES))
def test_a_key_changes_what_a_run_leaves(key, trace):
    change = CHANGES[key]
    *before, last = (change,) if isinstance(change, str) else change
    without = trace(tuple(before))
    assert isinstance(without, dict), without
    assert trace((*before, last)) != without


def test_what_does_not_change_leaves_the_same(trace):
    assert trace(()) == trace(("seed=42",))
    assert isinstance(trace(()), dict)

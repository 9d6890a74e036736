"""More than sixty mistakes in a recipe over real data: every one is refused or warned of, at its line."""

import pytest

RECIPE = """\
version: 1
name: mutant
seed: 42
model:
  base: {type: scratch, hidden_size: 32, num_layers: 1, num_heads: 2}
  max_seq_length: 64
  pooling: mean
  layers: [normalize]
  prompts: {query: "query: ", document: "passage: "}
data:
  dataset: SHARED/data/qqp_triplets
  split: train
  format: triplet
  columns: {anchor: set.query, positive: "set.pos[0]", negative: "set.neg[0]"}
  limit: 300
loss: {type: triplet, distance: cosine, margin: 0.5}
train:
  epochs: 1
  batch_size: 16
  learning_rate: 1.0e-3
  warmup_ratio: 0.1
  best: kept/accuracy_cosine
eval:
  - type: triplet
    name: kept
    dataset: SHARED/data/qqp_triplets
    split: "train[4000:4100]"
    columns: {anchor: set.query, positive: "set.pos[0]", negative: "set.neg[0]"}
"""

# Number of a line -> what to write there instead, each with a word of what check should say about it, and the line it
# should point at where that is another.
MUTANTS = {
    1: [("version: 2", "version 2"), ("version: one", "1"), ("verison: 1", "version")],
    2: [("name: ../up", "name"), ("name: [a]", "text"), ("name: mutant\nname: again", "duplicate")],
    3: [("seed: -1", "at least 0"), ("seed: 4.5", "whole"), ('seed: "42"', "whole number"), ("\tseed: 42", "tab")],
    4: [("modle:", "model"), ("model: &m", "anchor")],
    5: [
        ("  base: {type: scratch, hidden_size: 33, num_layers: 1, num_heads: 2}", "multiple"),
        ("  base: {type: scrach, hidden_size: 32}", "scratch"),
        ("  base: {type: scratch, hidden: 32}", "hidden_size"),
        ("  base: ./no-such-model", "does not exist"),
        ("  base: SHARED/data/stsb", "not a model folder"),
        ("  bsae: {type: scratch}", "base"),
        ("  base: {type: scratch", "not closed"),
    ],
    6: [("  max_seq_length: 4096", "positions"), ("  max_seq_length: 4", "reach"), ("  max_seq_length: yes", "whole")],
    7: [("  pooling: men", "mean"), ("  pooling: []", "at least 1"), ("  pooling: {mode: mean}", "pooling")],
    8: [
        ("  layers: [normalise]", "normalize"),
        ("  layers: [{type: dense}]", "out_features"),
        ("  layers: normalize", "list"),
        ("  truncate_dim: 4000", "dimensions"),
    ],
    9: [
        ("  prompts: {search: 'find: '}", "no column uses"),
        ("  default_prompt: qurey", "qurey"),
        ("  prompts: 'query: '", "mapping"),
    ],
    11: [
        ("  dataset: SHARED/data/qqp_triplet", "does not exist"),
        ("  dataset: SHARED/data/*.parquet", "no file matches"),
        ("  dataset: SHARED/models/plain-minilm-l6-h384", "is the folder of a model"),
        ("  dataset: SHARED/models", "there is no column `set`", 14),  # its page is a document
        ("  data_set: SHARED/data/qqp_triplets", "dataset"),
    ],
    12: [
        ("  split: trian", "train"),
        ("  split: train[:50", "split"),
        ("  split: train[:50%:100]", "split"),
        ("  split: train[9000:]", "no rows"),
        ("  where: {set.query: nobody wrote this}", "drops all"),
        ("  where: {lang: en}", "no column"),
        ("  holdout: {fraction: 1.5}", "less than 1"),
        ("  holdout: {rows: 20}", "holdout"),
        ("  revision: main", "Hub"),
    ],
    13: [
        ("  format: triplets", "triplet"),
        ("  format: positive_pair", "support format", 16),
        ("  format: labeled_pair", "support format", 16),
    ],
    14: [
        ("  columns: {anchor: set.qurey, positive: 'set.pos[0]', negative: 'set.neg[0]'}", "query"),
        ("  columns: {anchor: sets.query, positive: 'set.pos[0]', negative: 'set.neg[0]'}", "set"),
        ("  columns: {anchor: set, positive: 'set.pos[0]', negative: 'set.neg[0]'}", "mapping"),
        ("  columns: {anchor: set.query, positive: set.pos, negative: 'set.neg[0]'}", "list"),
        ("  columns: {anchor: set.query, positive: 'set.pos[9]', negative: 'set.neg[0]'}", "no example"),
        ("  columns: {anchor: set.query, positive: 'set.neg[0]', negative: 'set.pos[0]'}", "swapped"),
        ("  columns: {anchor: set.query, positive: set.query, negative: 'set.neg[0]'}", "same text"),
        ("  columns: {anchor: set.query, positive: 'set.pos[0]', negative: 'set.pos[0]'}", "same text"),
        ("  columns: {anchor: set.query, positive: 'set.pos[0]'}", "negative"),
        ("  columns: {query: set.query, positive: 'set.pos[0]', negative: 'set.neg[0]'}", "role"),
        ("  columns: {anchor: 'set.query[', positive: 'set.pos[0]', negative: 'set.neg[0]'}", "selector"),
    ],
    15: [
        ("  limit: 0", "more than 0"),
        ("  prompts: {ancor: query}", "role"),
        ("  prompts: {anchor: qeury}", "query"),
        ("  label_range: [5, 0]", "less than the second"),
    ],
    16: [
        ("loss: {type: triplet, distance: cosine, margin: 5}", "can't be reached"),
        ("loss: {type: triplet, distance: euclidean, margin: 2}", "can't be reached"),
        ("loss: {type: triplet, distance: cosin}", "cosine"),
        ("loss: {type: triplets}", "triplet"),
        ("loss: {type: triplet, margin: -1}", "at least 0"),
        ("loss: cosent", "support format"),
        ("loss: {type: multiple_negatives_ranking, scale: 0.05}", "temperature"),
        ("loss: {type: triplet, distance: cosine, margin: 0.5, matryoshka_dims: [4000]}", "dimensions"),
    ],
    18: [("  epochs: 1\n  max_steps: 10", "set only one"), ("  epochs: 0", "more than 0"), ("  epochs: 1e", "number")],
    19: [
        ("  batch_size: 16\n  sampler: group_by_label", "group_by_label"),
        ("  batch_size: 16\n  mini_batch_size: 64", "saves no memory"),
        ("  batch_size: 16\n  accumulate_steps: 100", "batches"),
        ("  batch_size: 16.0", "whole number"),
        ("  batchsize: 16", "batch_size"),
    ],
    20: [
        ("  learning_rate: 0", "no weight"),
        ("  learning_rate: 1.0e-6", "too low"),
        ("  learning_rate: nan", "expected a number"), ("  learning_rate: .inf", "finite"),
        ("  lr: 1e-3", "lr"),
        ("  freeze: ['*']", "freezes"),
    ],
    21: [
        ("  warmup_steps: 500", "exceeds the"),
        ("  warmup_ratio: 1.5", "less than 1"),
        ("  eval_every_steps: 500", "exceeds the"),
        ("  early_stopping: {patience: 0}", "more than 0"),
    ],
    22: [("  best: kept/acuracy_cosine", "accuracy_cosine"), ("  best: loss", "best")],
    24: [("  - type: triplets", "triplet"), ("  - type: similarity", "labeled_pair", 28)],
    25: [("    from: holdout", "holdout", 26), ("    when: []", "never runs"), ("    name: a/b", "name")],
    26: [("    dataset: SHARED/data/nowhere", "does not exist")],
    27: [
        ('    split: "train[:300]"', "trained on"),
        ('    split: "test[:100]"', "selects the model", 22),
        ("    split: dev", "no split"),
    ],
}  # fmt: skip


@pytest.mark.slow
def test_every_wrong_recipe_is_refused_or_warned_of_at_its_line(shared, judge, table):
    recipe = RECIPE.replace("SHARED", str(shared))
    errors, warnings = judge.problems_of(recipe)
    assert not errors
    known = {problem.message for problem in warnings}
    kinds, wrong = [], []
    for line, changes in MUTANTS.items():
        for change, word, *elsewhere in changes:
            lines = recipe.splitlines()
            lines[line - 1] = change.replace("SHARED", str(shared))
            verdict = judge("\n".join(lines) + "\n", known)
            kinds.append(verdict.kind)
            at = elsewhere or range(line, line + 1 + change.count("\n"))
            if not any(is_meant(problem, word, at) for problem in verdict.new):
                wrong.append((line, change, word, verdict))
    table("wrong recipes", kinds)
    assert not wrong, "\n".join(map(str, wrong))
    assert set(kinds) == {"refused", "warned"}
    assert len(kinds) >= 60


def is_meant(problem, word, lines):
    """A problem says what is expected, and points at the mutated line where it points into the recipe."""
    in_recipe = problem.file == "mutant.yaml" and problem.line is not None
    return word in f"{problem.message}\n{problem.code}" and (not in_recipe or problem.line in lines)

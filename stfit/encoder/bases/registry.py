"""Every kind of base: what a recipe may write under `model.base`, and what a model folder may start with."""

from typing import Annotated

from pydantic import Field

from stfit.encoder.bases.bag_of_words import BAG_OF_WORDS, BagOfWords
from stfit.encoder.bases.bert_scratch import Scratch
from stfit.encoder.bases.static import STATIC_EMBEDDING, Static
from stfit.encoder.bases.transformer import TRANSFORMER
from stfit.encoder.bases.words import WORD_EMBEDDINGS, WordEmbeddings

Base = Annotated[Scratch | Static | WordEmbeddings | BagOfWords, Field(discriminator="type")]

KINDS = {kind.st_name: kind for kind in (TRANSFORMER, WORD_EMBEDDINGS, STATIC_EMBEDDING, BAG_OF_WORDS)}

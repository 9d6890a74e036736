"""The evaluators a recipe can choose from."""

from typing import Annotated, Any

from stfit.evaluation.base import EvaluatorBase
from stfit.evaluation.binary_classification import BinaryClassification
from stfit.evaluation.classification import Classification
from stfit.evaluation.label_accuracy import LabelAccuracy
from stfit.evaluation.loss import LossOnRows
from stfit.evaluation.mse import MSEToTeacher
from stfit.evaluation.mteb import Mteb
from stfit.evaluation.nanobeir import NanoBeir
from stfit.evaluation.paraphrase_mining import ParaphraseMining
from stfit.evaluation.reranking import Reranking
from stfit.evaluation.retrieval import Retrieval
from stfit.evaluation.similarity import Similarity
from stfit.evaluation.translation import Translation
from stfit.evaluation.triplet import TripletAccuracy
from stfit.spec import Choice, union_members

Evaluator = Annotated[
    Similarity
    | BinaryClassification
    | TripletAccuracy
    | Retrieval
    | Reranking
    | ParaphraseMining
    | Translation
    | Classification
    | LabelAccuracy
    | MSEToTeacher
    | LossOnRows
    | NanoBeir
    | Mteb,
    Choice("evaluator", EvaluatorBase, "format", "main_metric", "metrics", "measure"),
]
EVALUATORS: list[Any] = list(union_members(Evaluator))

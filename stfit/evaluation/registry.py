"""The evaluators a recipe can choose from."""

from typing import Annotated, Any

from stfit.evaluation.base import EvaluatorBase
from stfit.evaluation.evaluators.binary_classification import BinaryClassification
from stfit.evaluation.evaluators.classification import Classification
from stfit.evaluation.evaluators.label_accuracy import LabelAccuracy
from stfit.evaluation.evaluators.loss import LossOnRows
from stfit.evaluation.evaluators.mse import MSEToTeacher
from stfit.evaluation.evaluators.mteb import Mteb
from stfit.evaluation.evaluators.nanobeir import NanoBeir
from stfit.evaluation.evaluators.paraphrase_mining import ParaphraseMining
from stfit.evaluation.evaluators.reranking import Reranking
from stfit.evaluation.evaluators.retrieval import Retrieval
from stfit.evaluation.evaluators.similarity import Similarity
from stfit.evaluation.evaluators.translation import Translation
from stfit.evaluation.evaluators.triplet import TripletAccuracy
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

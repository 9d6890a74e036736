import json
from contextlib import chdir
from pathlib import Path

import pytest

from stfit.commands.train import train
from stfit.recipe.load import load_recipe

WORDS = ["rain", "bread", "train", "cat", "star", "song", "chess", "tea", "apple", "river", "lamp", "fish"]
RECIPE = """\
model:
  base: {type: scratch, hidden_size: 16, num_layers: 1, num_heads: 2}
  max_seq_length: 16
  layers: [{type: dense, out_features: 12}, normalize]
  prompts: {query: "ask: ", document: "say: "}
data: {dataset: ./secret-project/rows.jsonl, format: positive_pair}
loss: {type: multiple_negatives_ranking, matryoshka_dims: [12, 6]}
train: {max_steps: 6, batch_size: 4, learning_rate: 0.01, log_every_steps: 2, device: cpu}
eval:
  - {type: similarity, name: scores, dataset: ./secret-project/rows.jsonl, split: train}
push: {repo: me/tiny, license: apache-2.0, language: [en]}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny model; its recipe lies two folders above, as recipe.yaml."""
    folder = tmp_path_factory.mktemp("somebodys-home")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "secret-project").mkdir()
    rows = [
        {"anchor": f"about {word}", "positive": f"all of {word}s", "sentence1": f"a {word}", "sentence2": f"{other}s"}
        | {"label": index % 5 / 4}
        for index, (word, other) in enumerate(zip(WORDS, WORDS[1:] + WORDS[:1], strict=True))
    ]
    (folder / "secret-project" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with chdir(folder):
        list(train(load_recipe(folder / "recipe.yaml"), folder / "runs"))
    return folder / "runs" / "recipe"

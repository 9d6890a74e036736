import json
import os
import subprocess
import sys

import numpy as np
import pytest

from stfit.data.batching.sampling import group_by_label, no_duplicates, sample_batches, shuffle
from stfit.errors import DataError, RecipeError


def random(seed=0):
    return np.random.default_rng(seed)


def all_of(made):
    return np.sort(np.concatenate(made)).tolist()


def skewed_pairs(examples, seed=0):
    """Texts of which few stand in most rows, with missing ones, and with texts that stand in both columns."""
    ids = np.minimum(random(seed).zipf(1.5, (examples, 3)), examples) + np.array([0, 0, examples // 2])
    ids[random(seed).random(ids.shape) < 0.1] = -1
    return ids


@pytest.mark.parametrize(("examples", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (3, [3])])
def test_shuffle_uses_every_example_once_and_keeps_the_last_batch(examples, sizes):
    made = shuffle(examples, 4, random())
    assert [len(batch) for batch in made] == sizes
    assert all_of(made) == list(range(examples))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("batch_size", [1, 2, 7, 32])
def test_no_text_stands_in_two_examples_of_a_batch_and_none_is_lost(seed, batch_size):
    ids = skewed_pairs(500, seed)
    made = no_duplicates(ids, batch_size, random(seed))
    assert all_of(made) == list(range(500))
    for batch in made:
        assert len(batch) <= batch_size
        texts = [text for example in ids[batch] for text in set(example.tolist()) - {-1}]
        assert len(texts) == len(set(texts))


def test_without_duplicates_all_batches_but_the_last_are_full():
    made = no_duplicates(np.arange(200).reshape(100, 2), 16, random())
    assert [len(batch) for batch in made] == [16] * 6 + [4]


def test_a_frequent_text_is_spread_over_the_epoch():
    ids = np.arange(1000).reshape(500, 2) + 1
    ids[:60, 0] = 0
    made = no_duplicates(ids, 8, random())
    assert sum(len(batch) == 8 for batch in made) >= 60
    assert len(made) <= 65  # 63 without duplicates
    assert all_of(made) == list(range(500))


def label_sets():
    shares = {
        "90/10": [0.9, 0.1],
        "90/5/5": [0.9, 0.05, 0.05],
        "half": [1, 1],
        "77 even": [1] * 77,
        "tail": [45] + [1] * 5,
    }
    for name, share in shares.items():
        label = random(1).choice(len(share), 1000, p=np.array(share) / sum(share))
        yield pytest.param(label, id=name)


@pytest.mark.parametrize("label", list(label_sets()))
@pytest.mark.parametrize("batch_size", [16, 17, 64])
def test_groups_hold_two_labels_and_a_pair_and_keep_95_percent(label, batch_size):
    made = group_by_label(label, batch_size, random())
    assert len(set(all_of(made))) == len(all_of(made)) >= 950
    for batch in made:
        counts = np.unique(label[batch], return_counts=True)[1]
        assert len(batch) <= batch_size
        assert len(counts) >= 2
        assert counts.max() >= 2


@pytest.mark.parametrize("batch_size", [4, 5, 8])
def test_many_labels_stand_in_pairs(batch_size):
    label = np.repeat(np.arange(77), 12)
    made = group_by_label(label, batch_size, random())
    single = sum(int((np.unique(label[batch], return_counts=True)[1] == 1).sum()) for batch in made)
    assert single <= len(label) * 0.05
    assert len(all_of(made)) == len(label)


def test_a_large_label_is_spread_evenly():
    label = np.repeat([0, 1, 2], [800, 100, 100])
    shares = [(label[batch] == 0).mean() for batch in group_by_label(label, 20, random())]
    assert max(shares) <= 0.9
    assert min(shares) >= 0.7


@pytest.mark.parametrize("counts", [[5, 16, 14, 18], [51, 18, 36], [14, 20, 7]])
def test_the_smallest_batches_hold_two_labels_and_a_pair_too(counts):
    label = np.repeat(np.arange(len(counts)), counts)
    for seed in range(100):
        for batch in group_by_label(label, 4, random(seed)):
            found = np.unique(label[batch], return_counts=True)[1]
            assert len(found) >= 2, seed
            assert found.max() >= 2, seed


def test_too_few_rows_of_other_labels_limit_the_batches_and_the_rest_is_counted():
    label = np.repeat([0, 1], [97, 3])
    made = group_by_label(label, 8, random())
    assert [len(batch) for batch in made] == [8, 8, 8]
    assert len(label) - sum(map(len, made)) == 76


def test_labels_with_one_row_are_not_used():
    made = group_by_label(np.array([0, 0, 1, 1, 2, 3]), 8, random())
    assert all_of(made) == [0, 1, 2, 3]
    assert group_by_label(np.array([0, 0, 0, 1]), 8, random()) == []


def test_group_by_label_says_what_it_needs():
    with pytest.raises(RecipeError, match="at least 4"):
        group_by_label(np.array([0, 0, 1, 1]), 3, random())
    with pytest.raises(RecipeError, match="a format with labels"):
        sample_batches("group_by_label", np.arange(4)[:, None], None, 4, 0, "", 1, 0)


@pytest.mark.parametrize("sampler", ["shuffle", "no_duplicates", "group_by_label"])
def test_an_epoch_is_a_function_of_its_arguments(sampler):
    def make(seed=1, fingerprint="f", epoch=0):
        label = np.arange(90) % 3
        return [
            batch.tolist() for batch in sample_batches(sampler, skewed_pairs(90), label, 8, seed, fingerprint, 1, epoch)
        ]

    assert make() == make()
    different = [make(), make(seed=2), make(fingerprint="g"), make(epoch=1)]
    assert len({json.dumps(made) for made in different}) == 4


def test_batches_do_not_depend_on_the_hash_seed():
    code = (
        "import numpy as np; from stfit.data.batching.sampling import sample_batches\n"
        "ids = np.arange(120).reshape(60, 2) % 50; label = np.arange(60) % 4\n"
        "for sampler in ('shuffle', 'no_duplicates', 'group_by_label'):\n"
        "    print([batch.tolist() for batch in sample_batches(sampler, ids, label, 8, 1, 'f', 1, 2)])"
    )
    found = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("0", "1", "2")
    }
    assert len(found) == 1


def test_batches_that_are_too_small_are_left_out_and_counted():
    ids = np.array([[0, 1], [0, 2], [0, 3], [4, 5]])
    made = sample_batches("no_duplicates", ids, None, 2, 0, "", 2, 0)
    assert [len(batch) for batch in made] == [2]
    assert 4 - sum(map(len, made)) == 2
    with pytest.raises(DataError, match="do not form a batch of at least 2 rows"):
        sample_batches("no_duplicates", ids[:3], None, 2, 0, "", 2, 0)

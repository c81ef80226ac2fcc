"""Post-processing: what is taken out, what it costs, and when a rule is learned."""

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest

from medseg.core.postprocessing import (
    Rule,
    apply,
    bytes_needed,
    from_primitives,
    to_primitives,
)
from medseg.core.postprocessing_learning import learn

ML = 0.001  # a voxel of 1 mm
BLOB = {"blob": 1}


def label_of(*boxes, shape=(20, 20, 20), dtype=np.uint8):
    """Return a label map with (value, first, last) cubes."""
    label = np.zeros(shape, dtype)
    for value, first, last in boxes:
        label[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = value
    return label


ORGAN = (1, (5, 5, 5), (11, 11, 11))
FAR = (1, (16, 16, 16), (18, 18, 18))


def test_only_the_largest_component_stays_and_other_classes_are_untouched():
    label = label_of(ORGAN, FAR, (7, (0, 0, 0), (2, 2, 2)), (7, (0, 9, 0), (2, 10, 2)))
    done = apply(label, [Rule("blob", largest_component=True)], {"blob": 1, "other": 7}, ML)
    assert done is label
    assert np.array_equal(label, label_of(ORGAN, (7, (0, 0, 0), (2, 2, 2)), (7, (0, 9, 0), (2, 10, 2))))  # fmt: skip


def test_components_are_joined_at_corners():
    label = label_of((1, (0, 0, 0), (2, 2, 2)), (1, (2, 2, 2), (4, 4, 4)))
    apply(label, [Rule("blob", largest_component=True)], BLOB, ML)
    assert label.sum() == 16


def test_of_equal_components_the_first_stays():
    label = label_of((1, (0, 0, 0), (2, 2, 2)), (1, (9, 9, 9), (11, 11, 11)))
    apply(label, [Rule("blob", largest_component=True)], BLOB, ML)
    assert label[0, 0, 0] == 1
    assert label.sum() == 8


@pytest.mark.parametrize(("voxel_ml", "left"), [(0.001, 216), (0.002, 224)])
def test_the_minimum_is_a_volume_whatever_the_grid(voxel_ml, left):
    label = label_of(ORGAN, FAR)  # FAR has 8 voxels
    apply(label, [Rule("blob", minimum_ml=0.016)], BLOB, voxel_ml)
    assert label.sum() == left


def test_a_component_of_just_the_minimum_stays():
    label = label_of((1, (0, 0, 0), (1, 1, 3)))
    apply(label, [Rule("blob", minimum_ml=0.3)], BLOB, 0.1)  # 3 * 0.1 > 0.3 in floating point
    assert label.sum() == 3
    apply(label, [Rule("blob", minimum_ml=3 * 0.1)], BLOB, 0.1)
    assert label.sum() == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_any_integers_and_memory_order_do(dtype):
    value = min(100_000, np.iinfo(dtype).max)
    label = np.asfortranarray(label_of(ORGAN, FAR, dtype=dtype) * value)
    apply(label, [Rule("blob", largest_component=True)], {"blob": value}, ML)
    assert np.array_equal(label == value, label_of(ORGAN) == 1)


def test_an_absent_class_and_no_rules_change_nothing():
    label = label_of(ORGAN)
    apply(label, [Rule("gone", largest_component=True)], {"gone": 9}, ML)
    apply(label, [], BLOB, ML)
    assert np.array_equal(label, label_of(ORGAN))


def test_rules_survive_json():
    rules = (Rule("a", largest_component=True), Rule("b", minimum_ml=0.1 + 0.2))
    assert from_primitives(json.loads(json.dumps(to_primitives(rules)))) == rules


def peak_bytes(label, classes):
    rules = [Rule(str(value), True, 0.5) for value in classes]
    tracemalloc.start()
    apply(label, rules, {str(value): value for value in classes}, ML)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def lattice(shape):
    """Return as many components as a volume can have."""
    label = np.zeros(shape, np.uint8)
    label[::2, ::2, ::2] = 1
    return label


def test_the_memory_keeps_its_promise_even_for_noise():
    shape = (160, 160, 160)
    assert peak_bytes(lattice(shape), [1]) < bytes_needed(shape)
    solid = np.ones(shape, np.uint8)
    assert peak_bytes(solid, [1]) < bytes_needed(shape)


def test_many_classes_cost_their_own_boxes_only():
    label = np.zeros((200, 100, 100), np.uint8)
    for value in range(1, 101):
        label[2 * value - 2 : 2 * value - 1] = value
    assert peak_bytes(label, range(1, 101)) < label.size


def noisy(seed, reference, blobs=4):
    """Return the reference with false cubes of 8 voxels away from it."""
    rng = np.random.default_rng(seed)
    made = reference.copy()
    for _ in range(blobs):
        i, j, k = rng.integers(13, 18, 3)
        made[i : i + 2, j : j + 2, k : k + 2] = 1
    return made


def shifted(seed):
    """Return an organ of one piece."""
    return label_of((1, (4 + seed % 2, 5, 5), (10 + seed % 2, 11, 11)))


def lesions(seed):
    """Return three lesions, of 27, 8 and 64 voxels."""
    at = seed % 2
    return label_of((1, (0, 0, at), (3, 3, 3 + at)), (1, (0, 9, 9), (2, 11, 11)), (1, (9, 0, 0), (13, 4, 4)))  # fmt: skip


def test_a_class_of_one_piece_learns_its_largest_component():
    learned = learn([(noisy(s, shifted(s)), shifted(s), ML) for s in range(4)], BLOB)
    assert learned.rules == (Rule("blob", largest_component=True),)
    (evidence,) = learned.evidence
    assert evidence.dice_before < 0.98
    assert evidence.dice_after == 1
    assert (evidence.cases, evidence.helped, evidence.harmed) == (4, 4, 0)


def test_a_class_of_several_lesions_is_never_cut_down_to_one():
    cases = [(lesions(s), lesions(s), ML) for s in range(4)]
    assert learn(cases, BLOB).rules == ()
    # Not even where the network finds but one lesion and invents another, so that it would help.
    one = label_of((1, (9, 0, 0), (13, 4, 4)))
    false = label_of((1, (9, 0, 0), (13, 4, 4)), (1, (16, 16, 16), (19, 19, 19)))
    assert (
        Rule("blob", largest_component=True)
        not in learn([(false, lesions(s) if s else one, ML) for s in range(4)], BLOB).rules
    )


def test_crumbs_below_every_lesion_are_learned_as_a_minimum_volume():
    cases = []
    for seed in range(4):
        crumbs = lesions(seed)
        crumbs[::3, 19, ::3] = 1  # single voxels, far from all
        cases.append((crumbs, lesions(seed), ML))
    (rule,) = learn(cases, BLOB).rules
    assert not rule.largest_component
    assert ML < rule.minimum_ml <= 8 * ML / 2


def test_dice_of_the_tables_is_that_of_the_label_maps():
    cases = [(noisy(s, shifted(s)), shifted(s), ML) for s in range(4)]
    learned = learn(cases, BLOB)
    dice = []
    for prediction, reference, _ in cases:
        apply(prediction, learned.rules, BLOB, ML)
        dice.append(2 * np.sum(prediction & reference) / (prediction.sum() + reference.sum()))
    assert learned.evidence[0].dice_after == pytest.approx(np.mean(dice), abs=1e-12)


def test_a_gain_in_one_case_is_no_rule():
    cases = [(shifted(s), shifted(s), ML) for s in range(5)]
    cases[2] = (noisy(2, shifted(2)), shifted(2), ML)
    learned = learn(cases, BLOB)
    assert learned.rules == ()
    assert learned.evidence[0].dice_after == learned.evidence[0].dice_before


def test_a_gain_that_no_table_shows_is_no_rule():
    truth = label_of((1, (2, 2, 2), (12, 12, 12)))
    crumb = truth.copy()
    crumb[19, 19, 19] = 1
    learned = learn([(crumb, truth, ML)] * 4, BLOB)
    assert learned.evidence[0].dice_before == pytest.approx(2000 / 2001)
    assert learned.rules == ()


def test_two_cases_are_too_few():
    assert learn([(noisy(s, shifted(s)), shifted(s), ML) for s in range(2)], BLOB).rules == ()


def test_a_rule_that_loses_the_class_in_a_case_is_not_taken():
    cases = [(noisy(s, shifted(s)), shifted(s), ML) for s in range(9)]
    # Here the largest piece is a false one, and the class is met by a smaller piece.
    wrong = label_of((1, (5, 5, 5), (7, 7, 7)), (1, (13, 13, 13), (19, 19, 19)))
    learned = learn([*cases, (wrong, shifted(9), ML)], BLOB)
    assert not any(rule.largest_component for rule in learned.rules)


def test_an_invented_structure_counts_until_it_is_gone():
    nothing = label_of()
    cases = [(shifted(s), shifted(s), ML) for s in range(4)] + [(label_of(FAR), nothing, ML)] * 2
    learned = learn(cases, BLOB)
    (evidence,) = learned.evidence
    assert evidence.dice_before == pytest.approx(4 / 6)
    assert evidence.dice_after == 1
    assert (evidence.cases, evidence.helped, evidence.harmed) == (6, 2, 0)
    assert learned.rules[0].minimum_ml > 8 * ML


def test_invented_structures_do_not_pay_for_harm_to_the_cases_that_have_the_class():
    split = label_of((1, (5, 5, 5), (10, 11, 11)), (1, (12, 5, 5), (13, 7, 7)))
    truth = label_of((1, (5, 5, 5), (13, 11, 11)))
    # What helps the invented ones, of 4 voxels too, takes a true piece out of each other case.
    invented = label_of((1, (16, 16, 16), (17, 18, 18)))
    cases = [(split.copy(), truth, ML) for _ in range(4)] + [(invented, label_of(), ML)] * 3
    assert learn(cases, BLOB).rules == ()


def test_a_class_without_any_reference_is_left_alone():
    learned = learn([(label_of(FAR), label_of(), ML)] * 5, BLOB)
    assert learned.rules == ()
    assert learned.evidence[0].dice_before == 0
    empty = learn([], BLOB).evidence[0]
    assert empty.cases == 0
    assert np.isnan(empty.dice_before)


def test_ignored_voxels_count_on_neither_side():
    cases = []
    for seed in range(4):
        reference = shifted(seed)
        reference[12:, 12:, 12:] = 255
        cases.append((noisy(seed, shifted(seed)), reference, ML))
    (evidence,) = learn(cases, BLOB, ignore_value=255).evidence
    assert evidence.dice_before == 1


def test_cases_are_taken_one_at_a_time():
    alive = []

    def stream():
        for seed in range(4):
            alive.append(seed)
            yield noisy(seed, shifted(seed)), shifted(seed), ML

    tracemalloc.start()
    learned = learn(stream(), BLOB)
    assert tracemalloc.get_traced_memory()[0] < 20**3
    tracemalloc.stop()
    assert alive == [0, 1, 2, 3]
    assert dataclasses.asdict(learned.evidence[0])["class_name"] == "blob"

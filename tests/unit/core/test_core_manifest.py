"""Manifests: what is accepted, and that everything wrong is named at once."""

import json
import re

import jsonschema
import pytest

from medseg.core.errors import ManifestError
from medseg.core.manifest import Case, case_id_of, case_id_problem, load_manifest, parse_manifest

LABELS = {"background": 0, "tumour": 1}


def case(name, fold=None, **more):
    entry = {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", **more}
    return entry if fold is None else {**entry, "fold": fold}


def content(*training, **more):
    return {
        "name": "Some set",
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "training": list(training) or [case("a", 0), case("b", 1)],
        **more,
    }


def parse(tmp_path, given):
    return parse_manifest(given, tmp_path / "m.json", tmp_path)


def write(tmp_path, given, name="m.json"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(given), encoding="utf-8")
    return path


def touch(tmp_path, *names):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_manifest_is_read_as_it_says(tmp_path):
    given = content(
        case("p1", 1, group="p"),
        test=[{"image": "images/q.nii"}],
        reference="Doe 2020",
        source="ask",
    )
    manifest = load_manifest(write(tmp_path, given))
    assert manifest.name == "some_set"
    assert manifest.class_names == ("background", "tumour")
    assert manifest.training == (
        Case("p1", ("images/p1.nii.gz",), "labels/p1.nii.gz", fold=1, group="p"),
    )
    assert manifest.test == (Case("q", ("images/q.nii",)),)
    assert manifest.root == tmp_path
    assert manifest.extra == {"reference": "Doe 2020"}


def test_root_moves_the_files_and_not_the_manifest(tmp_path):
    manifest = load_manifest(write(tmp_path, content()), root=tmp_path / "elsewhere")
    assert manifest.files(manifest.training[0]) == [
        tmp_path / "elsewhere/images/a.nii.gz",
        tmp_path / "elsewhere/labels/a.nii.gz",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "a manifest is a JSON object; got list"),
        (None, "No such file"),
    ],
)
def test_what_is_no_manifest_is_refused_in_words(tmp_path, text, told):
    path = tmp_path / "m.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ManifestError, match=told):
        load_manifest(path)


def test_all_problems_are_named_at_once(tmp_path):
    given = content(
        case("a", 0),
        case("a", 1),
        {"image": "/etc/x.nii.gz", "label": "labels/x.nii.gz", "fold": 0},
        {"image": "images/bare.nii.gz", "fold": 0},
        labels={"background": 0, "tumour": 1.5},
        chanel_names={},
        channel_names={"1": "CT"},
    )
    with pytest.raises(ManifestError) as caught:
        parse(tmp_path, given)
    message = str(caught.value)
    for told in (
        "has 7 problems:",
        "label values must be whole numbers >= 0; wrong for ['tumour']",
        "`channel_names` must have the keys ['0']; got ['1']",
        "training[2]: path '/etc/x.nii.gz' leaves the root folder",
        "training[3] ('bare'): no label; cases without one belong in `test`",
        "unknown key 'chanel_names'. Did you mean 'channel_names'?",
        "case id 'a' is used 2 times",
        "image 'images/a.nii.gz' is in fold 0 and fold 1",
    ):
        assert told in message
    assert message.count("\n  - ") == 7


@pytest.mark.parametrize(
    "path",
    ["../x.nii.gz", "/data/x.nii.gz", "images/../../x.nii.gz", "images\\..\\x.nii.gz", "a\x00.nii"],
)
@pytest.mark.parametrize("key", ["image", "label"])
def test_paths_may_not_leave_the_root(tmp_path, path, key):
    with pytest.raises(ManifestError, match="leaves the root folder"):
        parse(tmp_path, content(case("a", case_id="a", **{key: path})))


def test_dots_within_a_name_are_no_way_out(tmp_path):
    manifest = parse(tmp_path, content(case("a", image="./images/a..b.nii.gz")))
    assert manifest.training[0].images == ("images/a..b.nii.gz",)


def test_case_ids_that_differ_in_case_alone_are_one(tmp_path):
    """On many file systems their predictions would be one file."""
    with pytest.raises(ManifestError, match="case id 'abc' is used 2 times"):
        parse(tmp_path, content(case("ABC"), case("abc")))


def test_an_image_may_not_be_in_two_folds(tmp_path):
    twin = case("b", 1, image="./images/a.nii.gz", case_id="b")
    with pytest.raises(ManifestError, match=r"image 'images/a.nii.gz' is in fold 0 and fold 1"):
        parse(tmp_path, content(case("a", 0), twin))


def test_an_image_may_not_be_trained_and_tested(tmp_path):
    test = [{"image": "images/a.nii.gz", "case_id": "other"}]
    with pytest.raises(ManifestError, match=r"image 'images/a.nii.gz' is in test and training"):
        parse(tmp_path, content(case("a"), test=test))


def test_a_group_may_not_be_split_between_folds(tmp_path):
    with pytest.raises(ManifestError, match=r"group 'p' is split between folds \['0', '1'\]"):
        parse(tmp_path, content(case("a", 0, group="p"), case("b", 1, group="p")))


def test_cases_without_a_group_are_no_group(tmp_path):
    cases = [case("a", 0, group=None), case("b", 1, group=None), case("c", 1, group="")]
    assert {c.group for c in parse(tmp_path, content(*cases)).training} == {""}


def test_folds_are_for_all_cases_or_for_none(tmp_path):
    with pytest.raises(
        ManifestError, match=r"1 training cases have no fold, the others do: \['b'\]"
    ):
        parse(tmp_path, content(case("a", 0), case("b")))


@pytest.mark.parametrize("fold", [-1, "0", 1.0, True])
def test_a_fold_is_a_whole_number(tmp_path, fold):
    with pytest.raises(ManifestError, match="`fold` must be a whole number >= 0"):
        parse(tmp_path, content(case("a", fold)))


def test_images_are_one_or_as_many_as_channels(tmp_path):
    channels = {"0": "T1", "1": "T2", "2": "FLAIR"}
    three = ["1.nii", "2.nii", "3.nii"]
    assert parse(tmp_path, content(case("a", image=three), channel_names=channels)).training[
        0
    ].images == tuple(three)
    assert len(parse(tmp_path, content(case("a"), channel_names=channels)).training) == 1
    with pytest.raises(ManifestError, match="case '1': 2 images for 3 channels"):
        parse(tmp_path, content(case("a", image=three[:2]), channel_names=channels))


class TestLabels:
    """The table of label values."""

    def parse(self, tmp_path, labels):
        return parse(tmp_path, content(labels=labels))

    def test_values_need_not_be_consecutive_and_set_the_order_of_the_classes(self, tmp_path):
        manifest = self.parse(tmp_path, {"vein": 42, "background": 0, "artery": 7})
        assert list(manifest.labels.items()) == [("background", 0), ("artery", 7), ("vein", 42)]

    def test_ignore_is_no_class(self, tmp_path):
        manifest = self.parse(tmp_path, {**LABELS, "ignore": 255})
        assert manifest.class_names == ("background", "tumour")
        assert manifest.ignore_value == 255

    def test_the_decathlons_table_is_turned_round(self, tmp_path):
        manifest = self.parse(tmp_path, {"2": "b", "0": "air", "10": "c"})
        assert manifest.labels == {"air": 0, "b": 2, "c": 10}

    def test_regions_are_refused_with_the_way_out(self, tmp_path):
        with pytest.raises(ManifestError, match=r"\['whole'\] are regions.*evaluate --regions"):
            self.parse(tmp_path, {"background": 0, "whole": [1, 2], "core": 2})

    @pytest.mark.parametrize(
        ("labels", "told"),
        [
            ({"a": 1, "b": 2}, "no background"),
            ({"ignore": 0, "a": 1, "b": 2}, "no background"),
            ({"background": 0}, "no class besides the background"),
            ({"background": 0, "ignore": 1}, "no class besides the background"),
            ({"background": 0, "a": 1, "b": 1}, r"label values \[1\] have two names"),
            (
                {"0": "background", "1": "a", "2": "a"},
                r"label names \['a'\] are given to two values",
            ),
            ({"background": 0, "a": -1}, r"wrong for \['a'\]"),
            ({"background": 0, "a": True}, r"wrong for \['a'\]"),
            ({"0": "background", "²": "a"}, "must be whole numbers"),
            ({}, "must be an object"),
            (["background", "a"], "must be an object"),
        ],
    )
    def test_a_wrong_table_is_refused(self, tmp_path, labels, told):
        with pytest.raises(ManifestError, match=told):
            self.parse(tmp_path, labels)


class TestFolds:
    """Training and validation cases."""

    def manifest(self, tmp_path, folds=3):
        return parse(tmp_path, content(*(case(f"c{n}", n % folds) for n in range(2 * folds))))

    def ids(self, cases):
        return [c.case_id for c in cases]

    def test_all_other_folds_are_trained_on(self, tmp_path):
        training, validation = self.manifest(tmp_path).split(1)
        assert self.ids(validation) == ["c1", "c4"]
        assert self.ids(training) == ["c0", "c2", "c3", "c5"]

    def test_training_folds_can_be_named(self, tmp_path):
        training, _ = self.manifest(tmp_path).split(1, [2])
        assert self.ids(training) == ["c2", "c5"]

    def test_a_fold_is_not_trained_and_validated(self, tmp_path):
        with pytest.raises(ManifestError, match="fold 1 is both validated and trained on"):
            self.manifest(tmp_path).split(1, [0, 1])

    def test_an_unknown_fold_is_refused_with_those_there_are(self, tmp_path):
        with pytest.raises(ManifestError, match="has no fold 7; it has 0, 1, 2"):
            self.manifest(tmp_path).in_folds([7])

    def test_a_lone_fold_leaves_nothing_to_train_on(self, tmp_path):
        with pytest.raises(ManifestError, match="no fold is left to train on besides fold 0"):
            self.manifest(tmp_path, folds=1).split(0)

    def test_without_folds_the_message_gives_the_command_that_draws_them(self, tmp_path, capsys):
        from medseg.cli import main

        path = write(tmp_path, content(*(case(name) for name in "abcdef")))
        with pytest.raises(ManifestError, match="has no folds") as caught:
            load_manifest(path).split(0)
        command = re.search("`medseg (.*?)`", str(caught.value))[1]
        assert main(command.split()) == 0
        drawn = load_manifest(tmp_path / "m_folds.json")
        assert drawn.folds == (0, 1, 2, 3, 4)
        assert str(drawn.path) in str(caught.value)


class TestFiles:
    """Files that are not there."""

    def test_absent_files_matter_only_to_who_needs_them(self, tmp_path):
        path = write(tmp_path, content(source="Ask the archive."))
        touch(tmp_path, "images/b.nii.gz", "labels/b.nii.gz")
        manifest = load_manifest(path)
        manifest.require_files(manifest.in_folds([1]))
        assert [c.case_id for c in manifest.absent(manifest.training)] == ["a"]
        with pytest.raises(ManifestError) as caught:
            manifest.require_files(manifest.in_folds([0, 1]))
        message = str(caught.value)
        assert "has 2 problems" in message
        assert f"{tmp_path / 'images/a.nii.gz'}: no such file (fold 0)" in message
        assert f"Is --root right (now {tmp_path})? Ask the archive." in message

    def test_all_are_counted_and_some_are_named(self, tmp_path):
        manifest = parse(tmp_path, content(*(case(name, 0) for name in "abcdefg")))
        with pytest.raises(ManifestError) as caught:
            manifest.require_files(manifest.training, "--data.root")
        heading, *lines, asked = str(caught.value).splitlines()
        assert "has 14 problems" in heading
        assert len(lines) == 11
        assert lines[-1] == "  - … and 4 more (fold 0: 14)"
        assert asked.startswith("Is --data.root right")

    def test_an_absent_channel_is_named(self, tmp_path):
        one = case("a", 0) | {"case_id": "a", "image": ["images/pet.nii.gz", "images/ct.nii.gz"]}
        manifest = parse(tmp_path, content(one, channel_names={"0": "PET", "1": "CT"}))
        touch(tmp_path, "images/pet.nii.gz", "labels/a.nii.gz")
        with pytest.raises(ManifestError, match=r"ct.nii.gz: no such file \(case 'a', CT, fold 0"):
            manifest.require_files(manifest.training)

    def test_many_absent_files_are_counted_by_fold(self, tmp_path):
        manifest = parse(tmp_path, content(*(case(f"c{n}", n % 2) for n in range(20))))
        with pytest.raises(ManifestError, match=r"… and 30 more \(fold 0: 20, fold 1: 20\)"):
            manifest.require_files(manifest.training)


MSD = {
    "name": "Hippocampus",
    "description": "Left and right hippocampus segmentation",
    "reference": " Vanderbilt University Medical Center",
    "licence": "CC-BY-SA 4.0",
    "relase": "1.0 04/05/2018",
    "tensorImageSize": "3D",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
    "numTraining": 1,
    "numTest": 1,
    "training": [
        {
            "image": "./imagesTr/hippocampus_367.nii.gz",
            "label": "./labelsTr/hippocampus_367.nii.gz",
        }
    ],
    "test": ["./imagesTs/hippocampus_267.nii.gz"],
}


class TestForeign:
    """MSD and nnU-Net."""

    def test_a_decathlon_task_loads_as_it_is(self, tmp_path):
        manifest = load_manifest(write(tmp_path, MSD, "dataset.json"))
        assert manifest.name == "hippocampus"
        assert manifest.channel_names == ("MRI",)
        assert manifest.labels == {"background": 0, "Anterior": 1, "Posterior": 2}
        assert manifest.training[0].label == "labelsTr/hippocampus_367.nii.gz"
        assert manifest.test == (Case("hippocampus_267", ("imagesTs/hippocampus_267.nii.gz",)),)

    def test_a_list_of_cases_that_nobody_knows_is_not_passed_over(self, tmp_path):
        path = write(tmp_path, {**MSD, "validation": []}, "dataset.json")
        with pytest.raises(ManifestError, match="unknown key 'validation'"):
            load_manifest(path)

    def raw_folder(self, tmp_path, **more):
        given = {
            "channel_names": {"0": "PET", "1": "CT"},
            "labels": LABELS,
            "numTraining": 2,
            "file_ending": ".nii.gz",
            "dataset_name": "x",
            **more,
        }
        write(tmp_path, given, "Dataset001_x/dataset.json")
        names = [f"imagesTr/{c}_000{n}.nii.gz" for c in ("p_01", "p_02") for n in (0, 1)]
        touch(tmp_path / "Dataset001_x", *names, "labelsTr/p_01.nii.gz", "labelsTr/p_02.nii.gz")
        return tmp_path / "Dataset001_x"

    def test_an_nnunet_raw_folder_is_read_by_its_files(self, tmp_path):
        folder = self.raw_folder(tmp_path)
        for path in (folder, folder / "dataset.json"):
            manifest = load_manifest(path)
            assert [c.case_id for c in manifest.training] == ["p_01", "p_02"]
            assert manifest.training[0].images == (
                "imagesTr/p_01_0000.nii.gz",
                "imagesTr/p_01_0001.nii.gz",
            )
            assert manifest.training[1].label == "labelsTr/p_02.nii.gz"
            manifest.require_files(manifest.training)

    def test_a_wrong_nnunet_file_is_refused_in_words(self, tmp_path):
        with pytest.raises(ManifestError, match="`channel_names` must be an object"):
            load_manifest(self.raw_folder(tmp_path, channel_names=2))


def test_the_digest_knows_the_list_and_not_the_place(tmp_path):
    first = parse(tmp_path, content())
    moved = parse_manifest(content(), tmp_path / "other.json", tmp_path / "other")
    assert first.digest == moved.digest
    other = parse(tmp_path, content(case("a", 1), case("b", 0)))
    assert first.digest != other.digest


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a/p.01.nii.gz", "p.01"), ("P.NII.GZ", "P"), ("x.nrrd", "x"), ("x.gz", "x.gz"), ("x", "x")],
)
def test_a_case_is_named_by_its_file_without_the_ending(name, expected):
    assert case_id_of(name) == expected


@pytest.mark.parametrize("case_id", ["", "..", "a/b", "a\nb", ".hidden", "-rf", "ä" * 101])
def test_what_cannot_be_a_file_name_is_no_case_id(case_id):
    assert case_id_problem(case_id)


@pytest.mark.parametrize("case_id", ["a", "a b", "a.b-c", "ä" * 100, "患者1"])
def test_what_can_be_a_file_name_is_a_case_id(case_id):
    assert case_id_problem(case_id) is None


class TestFiled:
    """The manifests of the project and their schema."""

    @pytest.fixture
    def schema(self, repository):
        path = repository / "data_manifests/manifest.schema.json"
        schema = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        return jsonschema.Draft202012Validator(schema)

    @pytest.mark.parametrize(
        ("name", "cases", "folds"),
        [
            ("hippocampus", 260, 5),
            ("phantoms", 20, 4),
            ("sarcoma_pet", 35, 5),
            ("sarcoma_petct", 12, 5),
        ],
    )
    def test_every_manifest_is_whole(self, repository, schema, name, cases, folds):
        path = repository / f"data_manifests/{name}.json"
        schema.validate(json.loads(path.read_text(encoding="utf-8")))
        manifest = load_manifest(path)
        assert len(manifest.training) == cases
        assert manifest.folds == tuple(range(folds))
        assert manifest.source
        assert manifest.licence

    def test_every_file_there_is_one_of_them(self, repository):
        assert {path.stem for path in (repository / "data_manifests").iterdir()} == {
            "hippocampus", "phantoms", "sarcoma_pet", "sarcoma_petct", "manifest.schema",
        }  # fmt: skip

    def test_both_sarcoma_sets_put_a_patient_into_one_fold(self, repository):
        pet, petct = (
            {
                c.group: c.fold
                for c in load_manifest(repository / f"data_manifests/{name}.json").training
            }
            for name in ("sarcoma_pet", "sarcoma_petct")
        )
        assert len(pet) == 35
        assert petct.items() <= pet.items()

    @pytest.mark.parametrize(
        "given",
        [content(), content(case("a", group=3, fold=None), test=["x.nii"]), MSD],
    )
    def test_the_schema_takes_what_is_read(self, schema, given, tmp_path):
        schema.validate(given)
        load_manifest(write(tmp_path, given, "dataset.json"))

    @pytest.mark.parametrize(
        "wrong",
        [
            content(case("a", image="../a.nii.gz")),
            content(case("a", label="/a.nii.gz")),
            content(case("a", image=[])),
            content(case("a", fold=-1)),
            content(case("a", folds=0)),
            content(case("a", case_id="a/b")),
            content({"image": "a.nii.gz"}),
            content(labels={"background": 0, "a": [1, 2]}),
            content(labels={"background": 0}),
            content(channel_names={}),
            {**content(), "training": []},
            {"labels": LABELS, "training": [case("a")]},
        ],
    )
    def test_the_schema_refuses_what_is_refused(self, schema, tmp_path, wrong):
        assert not schema.is_valid(wrong)
        with pytest.raises(ManifestError):
            parse(tmp_path, wrong)


def test_contradictions_between_cases_can_be_collected_instead_of_refused(tmp_path):
    entry = {"image": "a.nii", "label": "l.nii", "group": "p", "site": 3}
    content = {
        "channel_names": {"0": "T1w"},
        "labels": {"background": 0, "tumour": 1},
        "training": [{**entry, "fold": 0}, {**entry, "case_id": "b", "fold": 1}],
    }
    found = []
    manifest = parse_manifest(content, tmp_path / "m.json", tmp_path, found)
    assert [case.site for case in manifest.training] == ["3", "3"]
    assert len(found) == 2
    assert "group 'p' is split" in found[1]
    with pytest.raises(ManifestError, match="group 'p' is split"):
        parse_manifest(content, tmp_path / "m.json", tmp_path)

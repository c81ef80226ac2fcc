"""What hostile reading of the reader and the writer has found, each as a test."""

import gzip
import os
import threading

import numpy as np
import pytest
import SimpleITK
import torture_itk as itk
import torture_nrrd as nrrd
from torture import AFFINE, VOXELS
from torture_dicom import AXIAL, STORED, one, saved, series
from torture_nifti import nifti, pair

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.io import read_volume, write_label_map, write_volume


def written(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


def code_of(path, **options):
    with pytest.raises(VolumeError) as caught:
        read_volume(path, **options)
    return caught.value.code


def warned(volume):
    return {text.split(":")[0] for text in volume.warnings}


class TestMetaImage:
    def test_the_channels_of_a_plane_are_no_slices(self, tmp_path):
        colours = np.random.default_rng(0).integers(0, 255, (5, 6, 3)).astype(np.uint8)
        image = SimpleITK.GetImageFromArray(colours, isVector=True)
        SimpleITK.WriteImage(image, str(tmp_path / "x.mha"))
        volume = read_volume(tmp_path / "x.mha", channels=3)
        np.testing.assert_array_equal(volume.array[:, :, 0], colours.transpose(1, 0, 2))
        assert code_of(tmp_path / "x.mha", channels=1) == "wrong-channels"

    @pytest.mark.parametrize("skip", [600, -1])
    def test_the_header_size_counts_within_one_file_too(self, tmp_path, skip):
        start = itk.meta(HeaderSize=skip)
        content = start + bytes(600 - len(start)) + itk.stored()
        np.testing.assert_array_equal(
            read_volume(written(tmp_path, "x.mha", content)).array, VOXELS
        )

    @pytest.mark.parametrize("sign", [": ", "\t=\t", "="])
    def test_signs_between_key_and_value(self, tmp_path, sign):
        content = itk.meta().replace(b" = ", sign.encode()) + itk.stored()
        np.testing.assert_array_equal(
            read_volume(written(tmp_path, "x.mha", content)).array, VOXELS
        )

    def test_a_header_that_names_itself_is_refused(self, tmp_path):
        assert code_of(written(tmp_path, "x.mhd", itk.meta(data="x.mhd"))) == "bad-header"

    def test_an_absolute_name_within_the_folder_is_no_escape(self, tmp_path):
        written(tmp_path, "x.raw", itk.stored())
        path = written(tmp_path, "x.mhd", itk.meta(data=str(tmp_path / "x.raw")))
        np.testing.assert_array_equal(read_volume(path).array, VOXELS)

    @pytest.mark.parametrize(("unit", "factor"), [("cm", 10.0), ("um", 0.001), ("furlong", 1.0)])
    def test_units_are_converted_or_told(self, tmp_path, unit, factor):
        volume = read_volume(written(tmp_path, "x.mha", itk.mha(DistanceUnits=unit)))
        np.testing.assert_allclose(volume.grid.affine[:3], AFFINE[:3] * factor)
        assert warned(volume) == {"units"}
        write_label_map(tmp_path / "y.mha", VOXELS > 0, volume.grid, like=tmp_path / "x.mha")
        np.testing.assert_allclose(read_volume(tmp_path / "y.mha").grid.affine, volume.grid.affine)


class TestNrrd:
    @pytest.mark.parametrize("unit", ["meters", "meter", "m"])
    def test_a_unit_has_many_names(self, tmp_path, unit):
        content = nrrd.nrrd(space_units=f'"{unit}" "{unit}" "{unit}"')
        volume = read_volume(written(tmp_path, "x.nrrd", content))
        np.testing.assert_allclose(volume.grid.affine[:3], AFFINE[:3] * 1000)

    @pytest.mark.parametrize("space", ["left-posterior-superior-time", "LPST"])
    def test_a_space_may_have_time(self, tmp_path, space):
        four = np.stack([VOXELS, VOXELS + 1], axis=-1)
        lps = np.diag([-1, -1, 1, 1]) @ AFFINE
        directions = [[*lps[:3, axis], 0] for axis in range(3)] + [[0, 0, 0, 2]]
        content = nrrd.nrrd(
            four, space=space, space_dimension=None,
            space_directions=" ".join(map(nrrd.vector, directions)),
            space_origin=nrrd.vector([*lps[:3, 3], 0]),
        )  # fmt: skip
        volume = read_volume(written(tmp_path, "x.nrrd", content), channels=2)
        np.testing.assert_array_equal(volume.array, four)
        np.testing.assert_allclose(volume.grid.affine, AFFINE)

    @pytest.mark.parametrize(
        "fields", [{"space_origin": "(5,6)"}, {"space_directions": "(1,0) (0,1) (0,0,2)"}]
    )
    def test_vectors_of_another_length_are_refused(self, tmp_path, fields):
        assert code_of(written(tmp_path, "x.nrrd", nrrd.nrrd(**fields))) == "bad-geometry"

    @pytest.mark.parametrize("origin", ["none", "(nan,nan,nan)", None])
    def test_no_origin_is_told(self, tmp_path, origin):
        volume = read_volume(written(tmp_path, "x.nrrd", nrrd.nrrd(space_origin=origin)))
        assert warned(volume) == {"no-geometry"}
        np.testing.assert_array_equal(volume.grid.affine[:3, 3], 0)

    def test_the_channels_of_a_plane_are_no_slices(self, tmp_path):
        fields = {"space_directions": None, "space_origin": None, "space_dimension": None}
        content = nrrd.nrrd(
            VOXELS, **fields, space=None, kinds="list domain domain", spacings="nan 1 1"
        )
        assert code_of(written(tmp_path, "x.nrrd", content)) == "bad-geometry"

    def test_axis_mins_are_told_not_guessed(self, tmp_path):
        fields = {"space": None, "space_directions": None, "space_origin": None}
        content = nrrd.nrrd(**fields, spacings="1 1 2", axis_mins="10 20 30")
        assert "no-geometry" in warned(read_volume(written(tmp_path, "x.nrrd", content)))

    def test_numbers_are_not_pythons(self, tmp_path):
        content = nrrd.head(encoding="text") + b"\n" + b"1_0 " * VOXELS.size
        assert code_of(written(tmp_path, "x.nrrd", content)) == "damaged"

    @pytest.mark.parametrize("sizes", ["1e200 1e200 1e200", "3 3 9007199254740993"])
    def test_absurd_sizes(self, tmp_path, sizes):
        assert code_of(written(tmp_path, "x.nrrd", nrrd.nrrd(sizes=sizes))) == "bad-header"

    def test_written_out_numbers_count_as_the_memory_they_take(self, tmp_path):
        text = b" ".join(b"%d" % n for n in VOXELS.ravel(order="F"))
        path = written(tmp_path, "x.nrrd", nrrd.head(encoding="text") + b"\n" + text)
        np.testing.assert_array_equal(read_volume(path).array, VOXELS)
        assert code_of(path, max_bytes=VOXELS.nbytes * 4) == "too-big"

    def test_a_falling_pattern_of_files(self, tmp_path):
        array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
        raw = nrrd.body(array)
        written(tmp_path, "s1.raw", raw[:24])
        written(tmp_path, "s0.raw", raw[24:])
        path = written(tmp_path, "x.nhdr", nrrd.head(array, data_file="s%d.raw 1 0 -1"))
        np.testing.assert_array_equal(read_volume(path).array, array)


class TestNifti:
    def test_the_image_compressed_as_its_header_is_read_and_the_other_told(self, tmp_path):
        header, voxels = pair()
        written(tmp_path, "x.hdr.gz", gzip.compress(header))
        written(tmp_path, "x.img.gz", gzip.compress(voxels))
        written(tmp_path, "x.img", bytes(len(voxels)))
        volume = read_volume(tmp_path / "x.hdr.gz")
        np.testing.assert_array_equal(volume.array, VOXELS)
        assert warned(volume) == {"two-images"}

    @pytest.mark.parametrize("start", [(31, 139), (92, 1)])
    @pytest.mark.parametrize("name", ["x.hdr", "x.img"])
    def test_voxels_of_a_pair_may_look_like_anything(self, tmp_path, start, name):
        array = np.zeros((4, 4, 64), np.uint8)
        array[:2, 0, 0] = start
        header, voxels = pair(array)
        written(tmp_path, "x.hdr", header)
        written(tmp_path, "x.img", voxels)
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, array)

    def test_a_zero_sform_gives_way_to_the_qform(self, tmp_path):
        zero = (0, 0, 0, 0)
        content = nifti(srow_x=zero, srow_y=zero, srow_z=zero, sform_code=1, qform_code=1)
        volume = read_volume(written(tmp_path, "x.nii", content))
        np.testing.assert_allclose(volume.grid.affine, AFFINE, atol=1e-4)
        assert warned(volume) == {"form-conflict"}

    def test_gzip_within_gzip_says_so(self, tmp_path):
        path = written(tmp_path, "x.nii.gz", gzip.compress(gzip.compress(nifti())))
        with pytest.raises(VolumeError, match=r"gzip within gzip \(unpack it once\)"):
            read_volume(path)


class TestNpy:
    @pytest.mark.parametrize(
        "shape",
        ["(" + "-" * 5000 + "1,)", f"({'9' * 3000},)", "(True, True, True)", f"({'1,' * 70})"],
    )
    def test_nonsense_in_the_header_is_refused(self, tmp_path, shape):
        text = f"{{'descr': '<i2', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
        assert code_of(written(tmp_path, "x.npy", head + bytes(100))) == "bad-header"


class TestDicom:
    def test_a_pipe_named_as_a_slice_does_not_hang(self, tmp_path):
        path = series(after=lambda folder: os.mkfifo(folder / "IM0099.dcm"))(tmp_path)
        done = []
        reader = threading.Thread(target=lambda: done.append(read_volume(path)), daemon=True)
        reader.start()
        reader.join(10)
        assert warned(done[0]) == {"other-files"}

    def test_a_slice_that_is_a_dangling_link_is_missed(self, tmp_path):
        path = series(after=lambda f: (f / "IM0099.dcm").symlink_to(f / "gone"))(tmp_path)
        assert code_of(path) == "unreadable"

    def test_a_name_that_is_not_utf8_is_refused_and_ends_nothing(self, tmp_path):
        def rename(folder):
            (folder / "IM0003.dcm").rename(folder / os.fsdecode(b"IM\xe9.dcm"))

        assert code_of(series(after=rename)(tmp_path)) == "unreadable"

    def test_slices_without_preamble_and_ending_count(self, tmp_path):
        def strip(folder):
            content = (folder / "IM0005.dcm").read_bytes()
            (folder / "IM0005.dcm").unlink()
            (folder / "IM0005").write_bytes(content[132:])

        whole = read_volume(series()(tmp_path)).array
        stripped = read_volume(series(after=strip)(tmp_path)).array
        np.testing.assert_array_equal(stripped, whole)

    @pytest.mark.parametrize(
        ("tags", "code"),
        [
            ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "multi-frame"),
            ({"RescaleSlope": "0"}, "bad-scaling"),
            ({"Modality": "RTDOSE"}, "unsupported-type"),
        ],
    )
    def test_what_would_be_read_wrongly_is_refused(self, tmp_path, tags, code):
        assert code_of(series(**tags)(tmp_path)) == code

    @pytest.mark.parametrize("kind", ["1.2.840.10008.5.1.4.1.1.481.8", "1.3.12.2.1107.5.9.1"])
    def test_an_object_of_another_series_without_pixels_is_no_damage(self, tmp_path, kind):
        def add(folder):
            dataset = one(STORED, AXIAL, 0)
            dataset.SeriesInstanceUID = "1.2.3.99"
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
            for name in ("PixelData", "Rows", "Columns", "BitsAllocated"):
                delattr(dataset, name)
            saved(dataset, folder / "plan.dcm")

        assert warned(read_volume(series(after=add)(tmp_path))) == {"other-files"}

    def test_a_thickness_that_is_no_number_does_not_matter(self, tmp_path):
        volume = read_volume(
            series(change=lambda d, k: setattr(d, "SliceThickness", None))(tmp_path)
        )
        assert volume.warnings == []

    def test_memory_is_what_the_values_take(self, tmp_path):
        path = series()(tmp_path)
        volume = read_volume(path)
        read_volume(path, max_bytes=8 * volume.array.size)
        assert code_of(path, max_bytes=volume.array.size) == "too-big"


class TestWriter:
    GRID = Grid((4, 5, 6), np.diag([1.0, 2.0, 3.0, 1.0]))

    @pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
    @pytest.mark.parametrize("dtype", [np.float16, np.longdouble, bool, np.complex64])
    def test_types_that_no_format_holds_are_refused_in_words(self, tmp_path, ending, dtype):
        with pytest.raises(VolumeError, match="unrepresentable: values of type"):
            write_volume(tmp_path / f"x{ending}", np.zeros(self.GRID.shape, dtype), self.GRID)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
    def test_big_endian_arrays_are_written_as_any(self, tmp_path, ending):
        array = np.arange(120, dtype=">i2").reshape(self.GRID.shape)
        write_volume(tmp_path / f"x{ending}", array, self.GRID)
        np.testing.assert_array_equal(read_volume(tmp_path / f"x{ending}").array, array)

    def test_the_label_that_does_not_fit_is_named(self, tmp_path):
        labels = np.zeros(self.GRID.shape, int)
        labels[0, 0, 0], labels[1, 1, 1] = -1, 22
        with pytest.raises(VolumeError, match="label -1 as uint8"):
            write_label_map(tmp_path / "x.nii", labels, self.GRID)

    def test_a_long_name_leaves_room_for_no_other(self, tmp_path):
        name = "\N{BRAIN}" * 60 + ".nii.gz"
        write_label_map(tmp_path / name, np.zeros(self.GRID.shape, int), self.GRID)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_nifti_named_as_metaimage_lends_only_its_grid(self, tmp_path):
        path = written(tmp_path, "x.mha", nifti())
        write_label_map(tmp_path / "y.mha", VOXELS > 0, read_volume(path).grid, like=path)
        assert read_volume(tmp_path / "y.mha").grid.is_same(read_volume(path).grid)

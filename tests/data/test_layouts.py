"""Common layouts of data sets in folders and zips."""

import json
import shutil
from pathlib import Path

import pytest

from genbench.core.errors import UserError
from genbench.data import ImageFolder
from genbench.data.layouts import layout
from tests.helpers.image_files import everything


def load(path, **kwargs):
    return ImageFolder(path=path, **{"size": 8, "workers": 0, **kwargs})


def labeled(data, stage):
    """The red of each picture of a split, and its class."""
    source = data.source(stage)
    return [
        (red, data.classes[k])
        for red, k in zip(source.everything.image[:, 0, 0, 0].tolist(), source.everything.label.tolist(), strict=True)
    ]


def shards(labels, count=20, each=10, root=""):
    """Pictures as the dataset_tool names them; the red of each is 10 times its number."""
    files = {f"{root}{k // each:05d}/img{k:08d}.png": 10 * k for k in range(count)}
    if labels is not ...:
        files[f"{root}dataset.json"] = json.dumps({"labels": labels}).encode()
    return files


def entries(label, count=20, each=10):
    return [[f"{k // each:05d}/img{k:08d}.png", label(k)] for k in range(count)]


# ---- dataset_tool of StyleGAN and EDM -----------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["", "cats/"])
def test_labels_of_the_dataset_tool_are_classes(make, root):
    data = load(make(shards(entries(lambda k: k % 2 + 9), root=root)), val_size=2, test_size=2)
    assert data.classes == ("9", "10")
    for stage in ("train", "val", "test"):
        assert all(name == str(red // 10 % 2 + 9) for red, name in labeled(data, stage))


def test_labels_with_gaps_give_classes_for_the_existing_values(make):
    data = load(make(shards(entries(lambda k: (0, 7, 100)[k % 3]))), val_size=2, test_size=2)
    assert data.classes == ("0", "7", "100")
    assert all(name == str((0, 7, 100)[red // 10 % 3]) for red, name in labeled(data, "train"))


@pytest.mark.parametrize("labels", [None, ...])
def test_shards_are_not_classes(make, labels):
    assert load(make(shards(labels))).classes == ()


def test_shards_of_ffhq_are_not_classes(make):
    assert load(make({f"{k * 1000:05d}/{k * 1000 + j:05d}.png": j for k in range(2) for j in range(5)})).classes == ()


def test_classes_with_numbers_for_names_stay_classes(make):
    files = {f"{k:05d}/{j:05d}_{j:05d}.png": j for k in range(2) for j in range(5)}  # as GTSRB has them
    assert load(make(files)).classes == ("00000", "00001")


def test_each_split_may_have_its_own_labels(make):
    files = shards(entries(lambda k: k % 2), root="train/") | shards(None, 4, root="val/") | {"test/a.png": 1}
    data = load(make(files))
    assert data.classes == ("0", "1") and data.source("val").everything.label is None
    assert all(name == str(red // 10 % 2) for red, name in labeled(data, "train"))


def test_a_dataset_json_of_another_format_is_ignored(make):
    files = {f"{name}/{k}.png": k for name in "ab" for k in range(5)}
    files["dataset.json"] = json.dumps({"labels": {"0": "background"}, "numTraining": 10}).encode()
    assert load(make(files)).classes == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            entries(lambda k: [0.5, 1]),
            r"lists of 2 numbers as labels, such as for 00000/img00000000.png: these are attributes",
        ),
        (entries(lambda k: 0.5), r"has the label 0.5 for 00000/img00000000.png; expected an integer of at least 0"),
        (entries(lambda k: True), r"has the label True for"),
        (entries(lambda k: k % 2)[:-2], r"has no label for 00001/img00000018.png, 00001/img00000019.png"),
        (entries(lambda k: k % 2, 21), r"labels for missing images: 00002/img00000020.png"),
        ([*entries(lambda k: 1), ["00000/img00000000.png", 2]], r"two labels for 00000/img00000000.png, 1 and 2"),
        (["00000/img00000000.png"], r"has the label entry 00000/img00000000.png; expected a pair"),
    ],
)
def test_labels_that_are_not_classes_are_refused_and_can_be_disabled(make, labels, sentence):
    path = make(shards(labels))
    with pytest.raises(UserError, match=sentence):
        load(path)
    assert load(path, labels=False).classes == ()


def test_an_invalid_dataset_json_is_named(make):
    path = make(shards(...) | {"dataset.json": b'{"labels": ['})
    with pytest.raises(UserError, match=r"dataset.json in .* is not readable as JSON"):
        load(path)
    assert load(path, labels=False).classes == ()


# ---- tiny-imagenet ------------------------------------------------------------------------------------------------


def tiny(told):
    files = {f"train/n{c}/images/n{c}_{k}.JPEG": 60 * c for c in range(3) for k in range(4)}
    files |= {f"train/n{c}/n{c}_boxes.txt": b"n0_0.JPEG\t0\t0\t31\t31\n" for c in range(3)}
    files |= {f"val/images/val_{k}.JPEG": 60 * (k % 3) for k in range(6)}
    files |= {f"test/images/test_{k}.JPEG": k for k in range(5)}
    if told is not None:
        files["val/val_annotations.txt"] = "".join(
            f"val_{k}.JPEG\tn{k % 3}\t0\t0\t9\t9\n" for k in range(told)
        ).encode()
    return {f"tiny-imagenet-200/{name}": content for name, content in files.items()}


def test_tiny_imagenet_has_the_labels_of_its_text_file(make):
    data = load(make(tiny(6)))
    assert data.classes == ("n0", "n1", "n2")
    assert len(labeled(data, "train")) == 12
    assert [name for _, name in labeled(data, "val")] == ["n0", "n1", "n2"] * 2
    assert all(abs(red - 60 * int(name[1])) < 8 for stage in ("train", "val") for red, name in labeled(data, stage))
    assert data.source("test").everything.label is None and len(data.source("test")) == 5


def test_tiny_imagenet_without_its_text_file_validates_without_labels(make):
    data = load(make(tiny(None)))
    assert data.classes == ("n0", "n1", "n2") and data.source("val").everything.label is None


def test_validation_images_missing_from_the_text_file_are_named(make):
    path = make(tiny(4))
    with pytest.raises(UserError, match=r"val_annotations.txt in .* has no class for .*val_4.JPEG, .*val_5.JPEG"):
        load(path)
    assert len(load(path, labels=False).source("val")) == 6


# ---- MVTec --------------------------------------------------------------------------------------------------------


def mvtec(kind, base):
    files = {f"{kind}/train/good/{k:03d}.png": base for k in range(10)}
    files |= {f"{kind}/test/{name}/{k:03d}.png": base + 50 for name in ("good", "broken") for k in range(4)}
    return (
        files | {f"{kind}/ground_truth/broken/{k:03d}_mask.png": 255 for k in range(4)} | {f"{kind}/license.txt": b"x"}
    )


def test_mvtec_trains_only_on_good_images(make):
    data = load(make(mvtec("bottle", 100)))
    assert data.classes == ()
    found = {stage: set(everything(data, [stage])[0][:, 0, 0, 0].tolist()) for stage in ("train", "val", "test")}
    assert found == {"train": {100}, "val": {100}, "test": {150}}
    assert [len(data.source(stage)) for stage in ("train", "val", "test")] == [9, 1, 8]


def test_the_root_of_mvtec_has_its_objects_as_classes(make):
    with pytest.warns(UserWarning, match="8 masks in folders `ground_truth` are ignored"):
        data = load(make(mvtec("bottle", 100) | mvtec("cable", 20)))
    assert data.classes == ("bottle", "cable")
    assert {*labeled(data, "train"), *labeled(data, "val")} == {(100, "bottle"), (20, "cable")}
    assert set(labeled(data, "test")) == {(150, "bottle"), (70, "cable")}


def test_split_folders_inside_class_folders_are_read(make):
    data = load(make({f"{c}/{s}/{k}.png": 10 * k for c in ("cat", "dog") for s in ("train", "test") for k in range(5)}))
    assert data.classes == ("cat", "dog") and len(data.source("test")) == 10


# ---- folders that are neither splits nor classes ------------------------------------------------------------------


def some(*folders, each=10):
    return {f"{folder}/{k}.png": k for folder in folders for k in range(each)}


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (some("train2017", "val2017"), "train2017 and val2017"),
        (some("training_set/a", "training_set/b", "test_set/a"), "test_set and training_set"),
        (some("train/good", "test_public/good"), "test_public and train"),
        (some("imagesTr", "imagesTs"), "imagesTr and imagesTs"),
        (some("images/train", "images/val", "other"), "train and val"),
        (
            some("bottle/train/good", "bottle/test/good") | {"overview.png": 1},
            "overview.png is not in a folder called train",
        ),
        (some("seg_train/sea", "seg_train/wood", "seg_test/sea", "seg_pred"), "seg_pred and seg_test and seg_train"),
        (some("DIV2K_train_HR", "DIV2K_valid_HR"), "DIV2K_train_HR and DIV2K_valid_HR"),
        (some("bounding_box_train", "bounding_box_test", "query", "gt_bbox"), "bounding_box_train and query"),
        (some("train/a", "train/b", "dev/a", "dev/b"), "train and dev"),
        (some("train", "holdout"), "train and holdout"),
        (some("trainA", "trainB", "testA", "testB"), "`--data UnpairedFolder`"),
        (some("a/b/c/train", "a/d/e/test"), "test and train"),
    ],
)
@pytest.mark.parametrize("labels", [True, False])
def test_folders_that_look_like_splits_but_are_not_read_as_splits_are_rejected(make, files, named, labels):
    with pytest.raises(UserError, match=named):
        load(make(files), labels=labels)


@pytest.mark.parametrize(
    "folders", [("images", "masks"), ("train/images", "train/labels", "test/images"), ("Images", "GroundTruth")]
)
def test_folders_of_images_and_masks_are_refused_as_classes(make, folders):
    with pytest.raises(UserError, match="look like images and their annotations"):
        load(make(some(*folders)))


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (("val/a", "val/b", "test/a"), "test and val, which look like splits, but none is called train"),
        (("test/a", "test/b"), "the folders test"),
        (("cat/test", "dog/test"), "none is called train"),
        (("trainA", "trainB"), "`--data UnpairedFolder`"),
        (("train1", "train2"), "train1 and train2"),
        (("fold_1/a", "fold_1/b", "fold_2/a"), "fold_1, fold_2, which look like parts of one data set"),
        (("fold1/train", "fold1/test", "fold2/train", "fold2/test"), "fold1, fold2, which look like parts"),
        (("train/part1", "train/part2", "test/part1"), "part1, part2, which look like parts"),
    ],
)
def test_splits_without_train_and_parts_of_a_data_set_are_not_used_as_classes(make, folders, named):
    path = make(some(*folders))
    with pytest.raises(UserError, match=named):
        load(path)
    assert load(path, labels=False).classes == ()


def test_words_for_splits_and_masks_in_class_names_are_accepted(make, tmp_path):
    for k, names in enumerate(
        [
            ("bullet_train", "steam_train"),
            ("bus", "road", "test_tube", "train_station"),
            ("crash_test", "stress_test"),
            ("with_mask", "without_mask"),
            ("mask", "nomask"),
            ("A", "B"),
        ]
    ):
        assert load(make({f"{k}/{name}": content for name, content in some(*names).items()})).classes == names
        shutil.rmtree(tmp_path / "pictures")


@pytest.mark.parametrize(
    "folders",
    [
        ("JPEGImages", "SegmentationClass", "SegmentationObject"),
        ("leftImg8bit/train/a", "leftImg8bit/val/a", "gtFine/train/a", "gtFine/val/a"),
        ("candle/Data/Images/Normal", "candle/Data/Masks/Anomaly", "pcb/Data/Images/Normal"),
        ("CelebA-HQ-img", "CelebAMask-HQ-mask-anno/0"),
        ("original", "masks"),  # by the names of the files
        (".", "masks"),
    ],
)
@pytest.mark.parametrize("labels", [True, False])
def test_folders_of_masks_beside_images_are_refused(make, folders, labels):
    with pytest.raises(UserError, match="look like images and their annotations"):
        load(make(some(*folders)), labels=labels)


@pytest.mark.parametrize("mask", ["{} (1)_mask.png", "{} (1)_mask_1.png", "{} (1)_GT.png", "{} (1)-Segmentation.png"])
def test_masks_beside_their_images_are_left_out_and_counted(make, mask):
    images = {f"{c}/{c} (1).png": red for c, red in {"cat": 10, "dog": 20}.items()}
    more = {f"{c}/{k}_mask.png": 30 for c in ("cat", "dog") for k in range(4)}  # of which there is no image
    masks = {f"{c}/{mask.format(c)}": 200 for c in ("cat", "dog")}
    with pytest.warns(UserWarning, match="2 masks next to their images are ignored: cat/cat"):
        data = load(make(images | more | masks))
    assert data.classes == ("cat", "dog")
    reds = everything(data, ["train", "val", "test"])[0][:, 0, 0, 0]
    assert sorted(set(reds.tolist())) == [10, 20, 30] and len(reds) == 10


def test_masks_of_volumes_are_left_out_by_their_series():
    names = [f"p{k}/p{k}_{kind}.nii.gz" for k in range(2) for kind in ("seg", "t1", "t2")]
    found = layout(names, names, Path("brats"), lambda name: b"")
    assert [name for name, _ in found.images["train"]] == [name for name in names if "seg" not in name]
    assert found.notes == ["2 masks next to their images are ignored: p0/p0_seg.nii.gz, p1/p1_seg.nii.gz."]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a/{}_sat.jpg", "a/{}_mask.png"),
        ("a/image_{}.png", "a/mask_{}.png"),
        ("a/volume-{}.nii", "a/segmentation-{}.nii"),
        ("case{}/imaging.nii.gz", "case{}/segmentation.nii.gz"),
        ("case{}/image.png", "case{}/label.png"),
    ],
)
def test_masks_whose_names_share_a_part_with_their_images_are_ignored(image, mask):
    images, masks = ([name.format(k) for k in range(4)] for name in (image, mask))
    found = layout(sorted(images + masks), [], Path("set"), lambda name: b"")
    assert [name for name, _ in found.images["train"]] == images
    assert found.notes == [f"4 masks next to their images are ignored: {', '.join(masks)}."]


def test_few_images_named_like_masks_are_kept():
    names = sorted([f"a/cat_{k}.png" for k in range(4)] + ["a/cat_mask.png", "b/mask.png", "b/dog.png"])
    found = layout(names, [], Path("set"), lambda name: b"")
    assert [name for name, _ in found.images["train"]] == names and found.notes == []


def test_system_folders_are_ignored(make):
    files = some("a", "b") | some("@eaDir/a", "a/@eaDir", "__MACOSX/a", "#recycle", ".thumbnails", "$RECYCLE.BIN/x")
    data = load(make(files))
    assert data.classes == ("a", "b")
    assert sum(len(data.source(stage)) for stage in ("train", "val", "test")) == 20


def test_numbered_folders_of_consecutively_numbered_images_are_shards(make):
    files = {f"{k:05d}/{5 * k + j}.png": j for k in range(3) for j in range(5)}
    with pytest.warns(UserWarning, match="the 3 folders with numeric names are used as shards"):
        assert load(make(files)).classes == ()


def test_folders_whose_names_only_resemble_splits_stay_classes(make):
    assert load(make(some("train", "testing_tube", "mask", "labels"))).classes == (
        "labels",
        "mask",
        "testing_tube",
        "train",
    )


def test_masks_are_left_out_without_a_training_folder(make):
    data = load(make(some("bottle/test/broken", "bottle/ground_truth/broken")), labels=False)
    assert data.classes == ()
    assert sum(len(data.source(stage)) for stage in ("train", "val", "test")) == 10


def test_images_in_no_class_folder_are_warned_about(make):
    with pytest.warns(UserWarning, match=r"1 training images are in no class folder \(loose.png\)"):
        assert load(make(some("a", "b") | {"loose.png": 1})).classes == ()


def test_a_test_image_in_no_class_folder_is_named(make):
    data = load(make(some("train/a", "train/b", "test/a") | {"test/loose.png": 1}))
    with pytest.raises(UserError, match="test/loose.png .* is in no class folder"):
        data.source("test")


def test_a_zip_in_a_zip_is_named(make):
    with pytest.raises(UserError, match="Unpack data/inner.zip first"):
        load(make({"data/inner.zip": b"PK"}))


def test_labels_may_be_a_mapping(make):
    data = load(make(shards(dict(entries(lambda k: k % 2)))), val_size=2, test_size=2)
    assert all(name == str(red // 10 % 2) for red, name in labeled(data, "train"))


def test_a_negative_label_is_refused(make):
    with pytest.raises(UserError, match="the label -1 for 00000/img00000000.png"):
        load(make(shards(entries(lambda k: k - 1))))


def test_a_deeply_nested_dataset_json_is_named(make):
    with pytest.raises(UserError, match="dataset.json .* is not readable as JSON"):
        load(make(some("a") | {"dataset.json": b"[" * 100_000}))


def annotated(text):
    return some("train/n0/images", "train/n1/images") | {"val/images/v.png": 1, "val/val_annotations.txt": text}


def test_annotations_saved_with_a_byte_order_mark_are_read(make):
    data = load(make(annotated("\ufeffv.png\tn1\t0\n".encode())))
    assert data.classes[int(data.source("val").everything.label[0])] == "n1"


def test_two_classes_for_one_validation_image_are_refused(make):
    with pytest.raises(UserError, match="two classes for v.png, n1 and n0"):
        load(make(annotated(b"v.png\tn1\t0\nv.png\tn0\t0\n")))

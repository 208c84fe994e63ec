"""Regions: RefCOCO, RefCOCO+ and RefCOCOg from MDETR's files, and Visual Genome's region descriptions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmexp.errors import UserError
from mmexp.interchange.datasets.base import Record, field, load_list


class RefCoco:
    """``name``: refcoco, refcoco+ or refcocog. Each expression is an image entry with an annotation of the same id."""

    def __init__(self, *, name: str) -> None:
        self.name = name
        self.needs = f"folder with MDETR's finetune_{name}_train.json"

    def records(self, raw: Path) -> Iterator[Record]:
        path = raw / f"finetune_{self.name}_train.json"
        boxes = {field(item, "image_id", str(path)): item["bbox"] for item in load_list(path, "annotations")}
        for item in load_list(path, "images"):
            number = field(item, "id", str(path))
            if number not in boxes:
                raise UserError(f"{path}: image {number} has no annotation")
            yield _record(
                str(number), item["file_name"], item["caption"], boxes[number], (item["width"], item["height"])
            )


class VgLoc:
    """Every region of every image."""

    needs = "folder with Visual Genome's image_data.json and region_descriptions.json"

    def records(self, raw: Path) -> Iterator[Record]:
        images_file, regions_file = raw / "image_data.json", raw / "region_descriptions.json"
        sizes = {
            field(item, "image_id", str(images_file)): (item["width"], item["height"])
            for item in load_list(images_file)
        }
        for image in load_list(regions_file):
            number = field(image, "id", str(regions_file))
            for region in field(image, "regions", f"{regions_file}: image {number}"):
                if number not in sizes:
                    raise UserError(f"{regions_file}: image {number} is not in {images_file.name}")
                box = (region["x"], region["y"], region["width"], region["height"])
                yield _record(str(region["region_id"]), f"{number}.jpg", region["phrase"], box, sizes[number])


def box_text(box: Sequence[float], size: tuple[float, float]) -> str:
    """(left, top, width, height) in pixels -> ``[x1,y1,x2,y2]`` relative to the image, three decimals."""
    left, top, width, height = box
    corners = (left / size[0], top / size[1], (left + width) / size[0], (top + height) / size[1])
    return "[" + ",".join(f"{corner:.3f}" for corner in corners) + "]"


def _record(number: str, image: str, phrase: str, box: Sequence[float], size: tuple[float, float]) -> Record:
    text = box_text(box, size)
    return {
        "question_id": number,
        "image": image,
        "question": phrase,
        "answer": text,
        "format": "box",
        "fields": {"phrase": phrase, "bbox": text},
    }

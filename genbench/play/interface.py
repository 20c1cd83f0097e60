"""The page: one tab for each ability that at least one of the models has, and one column for each model."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from genbench.core.capabilities import Encodes, Samples, SamplesLatents, choices, options, takes_condition
from genbench.core.errors import UserError
from genbench.play import actions, uploads
from genbench.play.actions import IN_TURN, Loaded

if TYPE_CHECKING:
    from PIL import Image

SLIDERS = 8
Controls = dict[str, Any]

CSS = """
.gradio-container {overflow: clip !important; width: 100%}
.gradio-container {max-width: 1500px !important; margin: auto; padding: 12px !important}
.gradio-container h1 {font-size: 1.15rem; margin: 0}
footer {display: none !important}
.gb h3 {margin: 0; font-size: 1rem; overflow-wrap: anywhere}
.gb p.about {margin: 0 0 8px; color: var(--block-info-text-color)}
.gb .figures {display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start}
.gb figure {margin: 0; max-width: 100%}
.gb .half figure {width: calc(50% - 6px); max-width: 224px}
.gb .half figure.wide {width: 100%; max-width: 460px}
.gb .quarter figure {width: calc(25% - 9px)}
.gb .half img, .gb .quarter img {width: 100%}
.gb img {display: block; max-width: 100%; height: auto; image-rendering: pixelated; margin: 0; border-radius: 2px}
.gb figcaption, .gb p, .gb td {font-size: .85rem; line-height: 1.35; overflow-wrap: anywhere; margin: 4px 0 0}
.gb figcaption {max-width: 560px}
.gb .error {padding: 8px 10px; border-left: 4px solid #c2410c; background: #c2410c1a; font-size: .95rem}
.gb table {border: 0; border-collapse: collapse; margin-top: 8px; width: 100%; max-width: 420px}
.gb td {border: 0; padding: 2px 8px 2px 0}
.gb td.bar {width: 60%}
.gb td.bar div {height: .8em; background: #3c78c8; min-width: 1px}
.board canvas {display: block; width: min(280px, 100%); background: #000; touch-action: none; cursor: crosshair}
.board button {margin-top: 6px; padding: 4px 14px; border: 1px solid var(--border-color-primary); border-radius: 6px}
.sticky {position: sticky; top: 0; align-self: flex-start; z-index: 50; background: var(--body-background-fill)}
@media (max-width: 700px) {
  .split {flex-direction: column}
  .results.first {order: -1}
  .sticky {align-self: auto; padding-bottom: 6px}
  .sticky .row {flex-wrap: nowrap; gap: 10px}
  .sticky .row > * {min-width: 0 !important; flex: 1 1 0 !important}
  .sticky .gb img {max-height: 34vh; width: auto}
}
"""


BOARD = '<canvas width="280" height="280" aria-label="drawing board"></canvas><button type="button">Clear</button>'
DRAWING = """
const canvas = element.querySelector('canvas'), pen = canvas.getContext('2d', {willReadFrequently: true});
const clear = () => { pen.fillStyle = '#000'; pen.fillRect(0, 0, canvas.width, canvas.height); };
const at = (event) => {
  const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
};
clear();
pen.strokeStyle = '#fff'; pen.lineWidth = 22; pen.lineCap = pen.lineJoin = 'round';
let last = null;
canvas.addEventListener('pointerdown', (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = at(event);
  pen.beginPath(); pen.moveTo(...last); pen.lineTo(...last); pen.stroke();
});
canvas.addEventListener('pointermove', (event) => {
  if (!last) return;
  pen.beginPath(); pen.moveTo(...last); pen.lineTo(...(last = at(event))); pen.stroke();
});
const done = () => {
  if (!last) return;
  last = null;
  props.value = canvas.toDataURL('image/png');
  trigger('change');
};
canvas.addEventListener('pointerup', done);
canvas.addEventListener('pointercancel', done);
element.querySelector('button').addEventListener('click', () => { clear(); props.value = ''; trigger('change'); });
"""


def html(
    shown: Loaded,
    images: Sequence[tuple[str, Image.Image]] = (),
    texts: Sequence[str] = (),
    classes: dict[str, float] | None = None,
    error: str | None = None,
    arranged: str = "",
) -> str:
    """A column of results. Every text is escaped.

    Args:
        arranged: `half` for two images in a row, `quarter` for four; strips of images take a row each
    """
    figures = "".join(
        f'<figure class="{"wide" if image.width > 2.5 * image.height else ""}">'
        f'<img src="{_source(image)}" alt="{escape(caption or shown.title)}">'
        + (f"<figcaption>{escape(caption)}</figcaption>" if caption else "")
        + "</figure>"
        for caption, image in images
    )
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="bar"><div style="width:{100 * p:.1f}%"></div></td>'
        f"<td>{100 * p:.1f}%</td></tr>"
        for name, p in (classes or {}).items()
    )
    return (
        f'<section class="gb"><h3>{escape(shown.title)}</h3><p class="about">{escape(shown.about)}</p>'
        + (f'<p class="error" role="alert">{escape(error)}</p>' if error else "")
        + (f'<div class="figures {arranged}">{figures}</div>' if figures else "")
        + (f"<table>{rows}</table>" if rows else "")
        + "".join(f"<p>{escape(text)}</p>" for text in texts)
        + "</section>"
    )


def _source(image: Image.Image) -> str:
    """The image as a data URI, so that no file is written."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


# ---- tabs -----------------------------------------------------------------------------------------------------------


def page(models: Sequence[Loaded]) -> gr.Blocks:
    """The page for one or several models.

    Raises:
        UserError: one of the models has no ability that the page can show.
    """
    able: dict[Callable[[gr.Blocks, list[Loaded]], None], Callable[[Any], bool]] = {
        _samples: lambda model: isinstance(model, Samples),
        _sliders: actions.has_sliders,
        _interpolation: actions.has_latent_paths,
        _arithmetic: actions.has_latent_paths,
        _upload: actions.takes_images,
        _draw: actions.takes_drawings,
    }
    for shown in models:
        if not any(can(shown.model) for can in able.values()):
            raise UserError(f"{shown.title} has no ability that the page can show.")
    with gr.Blocks(title="genbench play", analytics_enabled=False) as blocks:
        gr.Markdown("# genbench play")
        with gr.Tabs():
            for build, can in able.items():
                if chosen := [shown for shown in models if can(shown.model)]:
                    build(blocks, chosen)
    return blocks


def _samples(blocks: gr.Blocks, models: list[Loaded]) -> None:
    with gr.Tab("Sample"), gr.Row(elem_classes="split"):
        with gr.Column(min_width=280):
            controls: Controls = {
                "seed": gr.Number(0, label="Seed", info="Image k is drawn from seed + k.", precision=0, minimum=0),
                "n": gr.Slider(1, 64, 16, step=1, label="Number of images"),
                **_conditions(models, IN_TURN),
                **_options(models, "sample"),
            }
            more = gr.Button("Next images")
        more.click(lambda seed, n: (seed or 0) + n, [controls["seed"], controls["n"]], controls["seed"], **_QUIET)

        def drawn(shown: Loaded, seed: Any, n: int, **values: Any) -> str:
            condition = {name: values.pop(name) for name in ("label", "prompt") if name in values}
            own = _own(shown.model, values)
            image = actions.samples(shown.model, actions.whole(seed, "The seed"), n, **condition, **own)
            return html(shown, [("", image)])

        _columns(models, drawn, controls, [blocks.load])


def _sliders(blocks: gr.Blocks, models: list[Loaded]) -> None:
    with gr.Tab("Latent sliders") as tab, gr.Row(elem_classes="split"):
        sizes = [_size(shown.model) for shown in models]
        with gr.Column(min_width=280):
            controls: Controls = {}
            if any(isinstance(shown.model, SamplesLatents) for shown in models):
                controls["seed"] = gr.Number(
                    0,
                    label="Seed of the code",
                    info="The code to which the sliders are added is drawn from it.",
                    precision=0,
                    minimum=0,
                )
            controls |= _conditions(models)
            encoders = [shown for shown in models if isinstance(shown.model, Encodes)]
            if encoders:
                controls["file"] = _file("Optional: start from the code of an image")
            count = min(SLIDERS, max(sizes))
            gr.Markdown(
                f"Each slider moves one of the first {count} dimensions of the code, in standard deviations."
                if count < max(sizes)
                else "Each slider moves one dimension of the code, in standard deviations."
            )
            for k in range(count):
                controls[f"z{k}"] = gr.Slider(-4, 4, 0, step=0.1, label=f"Dimension {k + 1}")
            back = gr.Button("All back to 0")
            sliders = [controls[f"z{k}"] for k in range(count)]
            back.click(lambda: [0] * len(sliders), None, sliders, **_QUIET)

        def decoded(shown: Loaded, seed: Any = 0, file: str | None = None, **values: Any) -> str:
            steps = [values.pop(f"z{k}") or 0 for k in range(count)]
            model, texts, x = shown.model, [], None
            if file is not None and isinstance(model, Encodes):
                seen = uploads.seen_by(shown, uploads.read(file), _name(file))
                x, texts = seen.x, [seen.note]
            elif file is not None:
                texts = ["This model does not encode images, so the code of the seed is used."]
            condition = actions.condition_of(model, 1, values.get("label"), values.get("prompt"))
            z = actions.start(model, actions.whole(seed, "The seed"), x, condition)
            return html(shown, [("", actions.moved(model, z, steps, **values))], texts)

        _columns(models, decoded, controls, [tab.select, blocks.load], sticky=True)


def _interpolation(blocks: gr.Blocks, models: list[Loaded]) -> None:
    with gr.Tab("Interpolate") as tab, gr.Row(elem_classes="split"):
        with gr.Column(min_width=280):
            controls: Controls = {
                "a": gr.Number(0, label="From seed", info="A code is drawn from each seed.", precision=0, minimum=0),
                "b": gr.Number(1, label="To seed", precision=0, minimum=0),
                "n": gr.Slider(4, 24, 12, step=2, label="Number of images"),
                "spherical": gr.Checkbox(
                    True,
                    label="Spherical",
                    info="The codes keep their length. Otherwise the path is straight, through shorter codes.",
                ),
                **_conditions(models),
            }

        def path(shown: Loaded, a: Any, b: Any, n: int, spherical: bool, **condition: Any) -> str:
            ends = (actions.whole(a, "The first seed"), actions.whole(b, "The second seed"))
            image = actions.interpolation(shown.model, *ends, n, spherical, **condition)
            return html(shown, [("row by row, from the first seed to the second", image)])

        _columns(models, path, controls, [tab.select])


def _arithmetic(blocks: gr.Blocks, models: list[Loaded]) -> None:
    with gr.Tab("Arithmetic") as tab, gr.Row(elem_classes="split"):
        with gr.Column(min_width=280):
            controls: Controls = {
                name: gr.Number(k, label=f"Seed {name}", precision=0, minimum=0) for k, name in enumerate("abc")
            }
            controls |= _conditions(models)
            gr.Markdown(
                "A code is drawn from each seed. The last image is decoded from the code of *a*, minus that of *b*, "
                "plus that of *c*."
            )

        def result(shown: Loaded, a: Any, b: Any, c: Any, **condition: Any) -> str:
            seeds = (actions.whole(a, "Seed a"), actions.whole(b, "Seed b"), actions.whole(c, "Seed c"))
            return html(shown, actions.arithmetic(shown.model, *seeds, **condition), arranged="quarter")

        _columns(models, result, controls, [tab.select])


def _upload(blocks: gr.Blocks, models: list[Loaded]) -> None:
    with gr.Tab("Upload an image"), gr.Row(elem_classes="split"):
        with gr.Column(min_width=280):
            controls: Controls = {"file": _file("Choose or drop an image")} | _of_encoders(models)
            gr.Markdown(f"{', '.join(_DONE[name] for name in _DONE if any(hasattr(m.model, name) for m in models))}.")

        def applied(shown: Loaded, file: str | None, label: str | None = None) -> str:
            if file is None:
                return html(shown, texts=["The results appear here."])
            seen = uploads.seen_by(shown, uploads.read(file), _name(file))
            return html(shown, *actions.what_it_does(shown, seen, label), arranged="half")

        _columns(models, applied, controls, [])


def _draw(blocks: gr.Blocks, models: list[Loaded]) -> None:
    from PIL import Image

    with gr.Tab("Draw"), gr.Row(elem_classes="split"):
        with gr.Column(min_width=280):
            gr.Markdown("Draw with the mouse or a finger, large and in the middle.")
            board = gr.HTML("", html_template=BOARD, js_on_load=DRAWING, elem_classes="board")
            controls: Controls = {"drawing": board} | _of_encoders(models)
            controls["dark"] = gr.Checkbox(
                True, label="White on black", info="Like the digits of MNIST. Otherwise black on white."
            )

        def applied(shown: Loaded, drawing: str | None, dark: bool, label: str | None = None) -> str:
            if not drawing:
                return html(shown, texts=["The results appear here."])
            image = uploads.drawn(drawing)
            image = image if dark else Image.eval(image, lambda value: 255 - value)
            seen = uploads.seen_by(shown, image, "The drawing")
            return html(shown, *actions.what_it_does(shown, seen, label), arranged="half")

        _columns(models, applied, controls, [])


# sampling option -> label and explanation
OPTIONS = {
    "mean": ("Mean of the decoder", "The expected image of each code. Otherwise pixels are drawn, which adds noise."),
}

_DONE = {
    "reconstruct": "Reconstructs the image",
    "translate": "translates it",
    "segment": "segments it",
    "classify": "classifies it",
    "log_likelihood": "computes its likelihood",
    "discriminate": "scores how real it looks",
    "encode": "encodes it and finds the nearest training images",
}


# ---- parts of tabs --------------------------------------------------------------------------------------------------

_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def _columns(
    models: list[Loaded], compute: Callable[..., str], controls: Controls, also: list[Any], sticky: bool = False
) -> None:
    """A column per model that shows `compute(model, **values of the controls)` whenever a control changes."""
    with (
        gr.Column(scale=3, min_width=300, elem_classes=["results", "first", "sticky"] if sticky else ["results"]),
        gr.Row(),
    ):
        for shown in models:
            with gr.Column(min_width=280):
                found = gr.HTML(html(shown, texts=["The results appear here."]))
            triggers = [*also]
            for control in controls.values():
                if isinstance(control, gr.Textbox):  # a partly typed word is not in the vocabulary
                    triggers += [control.submit, control.blur]
                else:
                    triggers.append(control.change)
            gr.on(
                triggers, partial(_or_sentence, shown, compute, list(controls)), list(controls.values()), found,
                trigger_mode="always_last", concurrency_limit=1, concurrency_id="models",
                **_QUIET | {"show_progress": "hidden" if sticky else "minimal"},
            )  # fmt: skip


def _or_sentence(shown: Loaded, compute: Callable[..., str], names: list[str], *values: Any) -> str:
    """What `compute` returns, or the sentence of its error."""
    try:
        return compute(shown, **dict(zip(names, values, strict=True)))
    except UserError as error:
        return html(shown, error=str(error))


def _conditions(models: Sequence[Loaded], every: str | None = None) -> Controls:
    """Controls for the class and the prompt, if a model is conditional. `every`: a choice for all classes."""
    controls: Controls = {}
    conditional = [shown.model for shown in models if shown.model.conditional]
    names = list(
        dict.fromkeys(name for model in conditional if model.spec.target == "label" for name in model.spec.classes)
    )
    if names:
        choices = ([every] if every else []) + names
        controls["label"] = gr.Dropdown(choices, value=choices[0], label="Class")
    words = list(
        dict.fromkeys(
            word for model in conditional if model.spec.target == "caption" for word in model.spec.vocabulary[1:]
        )
    )
    if words:
        controls["prompt"] = gr.Textbox(
            _example(conditional), label="Prompt", info=f"Press Enter to apply it. Words: {', '.join(words)}."
        )
    return controls


def _example(models: Sequence[Any]) -> str:
    """A prompt that at least one of the models accepts."""
    vocabulary = next(model.spec.vocabulary for model in models if model.spec.target == "caption")
    wanted = "a large red circle at the top left"
    return wanted if set(wanted.split()) <= set(vocabulary) else vocabulary[1]


def _of_encoders(models: Sequence[Loaded]) -> Controls:
    """A control for the class of an image, if an encoder takes it."""
    takers = [shown for shown in models if isinstance(shown.model, Encodes) and takes_condition(shown.model.encode)]
    controls = _conditions(takers)
    if "label" in controls:
        controls["label"].label = "Class of the image, for the encoder"
    return controls


def _options(models: Sequence[Loaded], method: str) -> Controls:
    """Controls for the models' own options of a method. Options with the same name and default share a control."""
    controls: Controls = {}
    for shown in models:
        of_model = getattr(shown.model, method)
        allowed = choices(of_model)
        for name, default in options(of_model).items():
            key = f"{name}={default!r}"
            if key in controls:
                continue
            label = OPTIONS.get(name, (name.replace("_", " ").capitalize(), ""))
            about: dict[str, Any] = {
                "label": label[0],
                "info": f"{label[1]} Sampling option of {type(shown.model).__name__}.".lstrip(),
            }
            if isinstance(default, bool):
                controls[key] = gr.Checkbox(default, **about)
            elif isinstance(default, int):
                controls[key] = gr.Number(default, precision=0, **about)
            elif isinstance(default, float):
                controls[key] = gr.Number(default, step=0.1, **about)
            elif name in allowed:
                controls[key] = gr.Dropdown(list(allowed[name]), value=default, **about)
            elif isinstance(default, str):
                controls[key] = gr.Textbox(default, **about)
    return controls


def _own(model: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a model's own options, from the controls that `_options` made."""
    own = options(model.sample)
    return {name: values[key] for name, default in own.items() if (key := f"{name}={default!r}") in values}


def _file(label: str) -> gr.File:
    gr.Markdown(f"{label}. PNG, JPEG, WebP, GIF, BMP or TIFF, at most 10 MB.")
    return gr.File(show_label=False, file_types=list(uploads.ENDINGS), height=130)


def _name(file: str) -> str:
    from pathlib import Path

    return Path(file).name


def _size(model: Any) -> int:
    size = 1
    for side in model.latent_shape:
        size *= side
    return size

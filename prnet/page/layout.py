"""What lies where on the page, of Gradio's components."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from prnet.page.views import VIEWS

# Title -> how the names of its coefficients begin.
GROUPS = {
    "Eyes": ("eye",),
    "Brows": ("brow",),
    "Jaw": ("jaw",),
    "Mouth": ("mouth",),
    "Cheeks and nose": ("cheek", "nose"),
}
COLUMNS = 4
WELCOME = "Drop a photo, take one with the camera, or click the example."
# Long names in narrow columns; the head's own file is not offered, it has no morph targets.
STYLE = """
.gradio-container { max-width: 1280px !important; }
#message { min-height: 3em; }
#head a, #file { display: none; }
#faces, #faces .grid-wrap { min-height: 0; height: auto; }
#expression .block, #turn { padding: 4px 8px; }
#expression .row { gap: 6px; align-items: center; }
#expression .block span { font-size: 12px; }
#expression .head { flex-wrap: nowrap; }
#expression input[type=number] { width: 52px; min-width: 0; padding: 2px 4px; }
"""


class Parts(NamedTuple):
    """The components that something happens to, or at."""

    photo: gr.Image
    message: gr.Markdown
    faces: gr.Gallery  # small pictures, where the photo has several
    weights: gr.Dropdown
    results: gr.Column  # all below; hidden while there is no face
    picture: gr.Image
    view: gr.Radio
    model: gr.Model3D
    turn: gr.Slider
    download: gr.Button
    file: gr.DownloadButton  # not shown: where a file that was made on request is fetched from
    expression: gr.Column  # all below; hidden where there are no coefficients
    as_seen: gr.Button
    neutral: gr.Button
    sliders: dict[str, gr.Slider]  # by the name of the coefficient


def lay_out(weights: Sequence[str], example: Path, names: Sequence[str]) -> Parts:
    """The components, made inside the page that is being built.

    weights: the choices, the first one chosen.
    names: of the coefficients.
    """
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            photo = gr.Image(
                label="Photo",
                sources=["upload", "webcam", "clipboard"],
                height=300,
                elem_id="photo",
                buttons=[],
            )
            # Its file is handed on as it came: `read_photo` knows more formats than Gradio,
            # and says what is wrong with one. A class of our own would have Gradio write a stub
            # beside it.
            photo.preprocess = lambda payload: None if payload is None else payload.path
            gr.Examples([[str(example)]], [photo], label="Example", cache_examples=False)
            message = gr.Markdown(WELCOME, elem_id="message")
            faces = gr.Gallery(
                label="Faces of the photo",
                columns=3,
                height="auto",
                allow_preview=False,
                interactive=False,
                visible=False,
                elem_id="faces",
                buttons=[],
            )
            chosen_weights = gr.Dropdown(
                list(weights), value=weights[0], label="Weights", elem_id="weights"
            )
        with gr.Column(scale=8, visible=False) as results:
            with gr.Row():
                with gr.Column(min_width=320):
                    picture = gr.Image(
                        label="What was found",
                        height=380,
                        format="jpeg",
                        interactive=False,
                        elem_id="picture",
                        buttons=["fullscreen"],
                    )
                    view = gr.Radio(
                        list(VIEWS), value=next(iter(VIEWS)), show_label=False, elem_id="view"
                    )
                with gr.Column(min_width=320):
                    model = gr.Model3D(label="Head", height=380, interactive=False, elem_id="head")
                    turn = gr.Slider(
                        -90, 90, 0, step=5, label="Turn, degrees", elem_id="turn", buttons=[]
                    )
                    download = gr.Button("Download GLB", variant="primary", elem_id="download")
                    file = gr.DownloadButton(elem_id="file")
            with gr.Column(visible=False, elem_id="expression") as expression:
                with gr.Row():
                    gr.Markdown("**Expression**, ARKit's coefficients from 0 to 1")
                    as_seen = gr.Button("As in the photo", size="sm", elem_id="as_seen")
                    neutral = gr.Button("Neutral", size="sm", elem_id="neutral")
                sliders = _sliders(names)
    return Parts(
        photo=photo,
        message=message,
        faces=faces,
        weights=chosen_weights,
        results=results,
        picture=picture,
        view=view,
        model=model,
        turn=turn,
        download=download,
        file=file,
        expression=expression,
        as_seen=as_seen,
        neutral=neutral,
        sliders=sliders,
    )


def _sliders(names: Sequence[str]) -> dict[str, gr.Slider]:
    """A slider for each coefficient, in tabs of those that move one part of the face."""
    sliders = {}
    with gr.Tabs():
        for title, beginnings in GROUPS.items():
            own = [name for name in names if name.startswith(beginnings)]
            with gr.Tab(title, id=title):
                for start in range(0, len(own), COLUMNS):
                    with gr.Row():
                        for name in own[start : start + COLUMNS]:
                            sliders[name] = gr.Slider(
                                0,
                                1,
                                0,
                                step=0.01,
                                label=name,
                                elem_id=name,
                                min_width=140,
                                buttons=[],
                            )
    return sliders

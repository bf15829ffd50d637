"""The page at work: what happens at a click, and the server."""

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import gradio as gr
import numpy as np

from prnet.page.layout import STYLE, WELCOME, Parts, lay_out
from prnet.page.studio import (
    Studio,
    Visit,
    choose,
    expression_of,
    write_download,
    write_shown,
)
from prnet.page.views import VIEWS, thumbnail
from prnet.reconstruction.glb import the_head

# A visitor's faces and files stay so long after the last click, seconds, and of so many visitors.
STAY = 3600
MOST_VISITORS = 100
# So many draw and move at once; only one at a time is looked at by a network.
AT_ONCE = 4
FONTS = ["system-ui", "sans-serif"]  # of the visitor: none is fetched


def build_page(studio: Studio, *, example: Path) -> gr.Blocks:
    """The page. What a visitor has lies in the state of the visitor's session alone."""
    with gr.Blocks(title="prnet", analytics_enabled=False, delete_cache=(STAY // 4, STAY)) as page:
        gr.Markdown("# prnet\nA photo goes in; a head comes out to turn, move and take along.")
        visit = gr.State(None, time_to_live=STAY, delete_callback=_close)
        _connect(lay_out(studio.weights, example, the_head().exp_names), visit, studio)
    return page


def _connect(parts: Parts, visit: gr.State, studio: Studio) -> None:
    """Say what happens."""
    sliders = list(parts.sliders.values())
    actions = Actions(studio, tuple(parts.sliders))
    shown = [parts.picture, parts.results, parts.expression, *sliders]
    setting = [visit, parts.turn, *sliders]
    private = {"api_visibility": "private"}
    quick = {"show_progress": "hidden", "concurrency_limit": AT_ONCE}
    live = {"trigger_mode": "always_last", **quick, **private}
    looked = gr.on(
        [parts.photo.change, parts.weights.change],
        actions.look,
        [parts.photo, parts.weights, parts.view, visit],
        [visit, parts.message, parts.faces, *shown],
        show_progress_on=[parts.message],
        api_name="look",
    )
    picked = parts.faces.select(
        actions.pick, [visit, parts.view], [visit, parts.message, *shown], **quick, **private
    )
    # A head that is given at once with the column that it lies in is not always drawn.
    looked.then(actions.move, setting, parts.model, api_name="move", **quick)
    picked.then(actions.move, setting, parts.model, **quick, **private)
    gr.on([slider.input for slider in sliders], actions.move, setting, parts.model, **live)
    parts.turn.input(actions.turn, parts.turn, parts.model, **live)
    parts.view.change(actions.draw, [visit, parts.view], parts.picture, **quick, **private)
    for button, own in ((parts.as_seen, True), (parts.neutral, False)):
        reset = functools.partial(actions.reset, own=own)
        button.click(reset, [visit, parts.turn], [parts.model, *sliders], **quick, **private)
    saved = parts.download.click(actions.save, setting, parts.file, api_name="save")
    saved.then(None, js=f"() => document.querySelector('#{parts.file.elem_id}').click()", **private)


class Actions:
    """What the page calls: each takes a visitor's values, and gives what components show next."""

    def __init__(
        self,
        studio: Studio,
        names: tuple[str, ...],  # of the coefficients, in the order of the sliders
    ) -> None:
        self.studio = studio
        self.names = names

    def look(self, path: str | None, weights: str, view: str, old: Visit | None) -> list:
        """A new photo, or other weights: the visit, what to say, the faces, and `_shown`."""
        new, text = None, WELCOME
        if path is not None:
            try:
                new = self.studio.look(Path(path), weights)
                text = described(new)
            except (ValueError, OSError) as error:
                text = f"**{error}**"
        _close(old)
        pictures = [thumbnail(face) for face in new.faces] if new is not None else []
        several = gr.update(value=pictures, visible=len(pictures) > 1, selected_index=0)
        return [new, text, several, *self._shown(new, view)]

    def pick(self, visit: Visit | None, view: str, event: gr.SelectData) -> list:
        """Another face of the photo."""
        new = None if visit is None else choose(visit, event.index)
        return [new, WELCOME if new is None else described(new), *self._shown(new, view)]

    def draw(self, visit: Visit | None, view: str) -> np.ndarray | None:
        """Another picture of the face."""
        return None if visit is None else VIEWS[view](visit.face, visit.texture)

    def move(self, visit: Visit | None, turn: float, *numbers: float) -> dict:
        """The head in the expression that the sliders say."""
        if visit is None:
            return gr.skip()
        path = write_shown(visit, self._expression(numbers))
        return gr.update(value=str(path), camera_position=camera_at(turn))

    def turn(self, turn: float) -> dict:
        """The head seen from another side."""
        return gr.update(camera_position=camera_at(turn))

    def reset(self, visit: Visit | None, turn: float, *, own: bool) -> list:
        """The head and all sliders as in the photo, or at rest."""
        expression = expression_of(visit) if visit is not None and own else {}
        numbers = [expression.get(name, 0.0) for name in self.names]
        return [self.move(visit, turn, *numbers), *numbers]

    def save(self, visit: Visit | None, _turn: float, *numbers: float) -> str | dict:
        """The file to take along."""
        if visit is None:
            return gr.skip()
        return str(write_download(visit, self._expression(numbers)))

    def _expression(self, numbers: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.names, numbers, strict=True))

    def _shown(self, visit: Visit | None, view: str) -> list:
        """The picture, whether there are results and an expression, and the sliders."""
        if visit is None:
            hidden = gr.update(visible=False)
            return [None, hidden, hidden, *[gr.skip()] * len(self.names)]
        own = expression_of(visit)
        return [
            self.draw(visit, view),
            gr.update(visible=True),
            gr.update(visible=bool(own)),
            *(own.get(name, 0.0) for name in self.names),
        ]


def camera_at(turn: float) -> tuple[float, float, None]:
    """Where the head is seen from, turned by degrees to the right of the picture."""
    return (90 - turn, 90, None)


def described(visit: Visit) -> str:
    """The face that is looked at, in a few words."""
    face = visit.face
    pitch, yaw, roll = face.pose.angles_deg
    which = f"Face {visit.chosen + 1} of {len(visit.faces)}" if len(visit.faces) > 1 else "One face"
    return (
        f"{which}, confidence {face.confidence:.2f}. Pitch {pitch:+.0f}°, yaw {yaw:+.0f}°, roll "
        f"{roll:+.0f}° (positive: nose up, nose to the left of the picture, clockwise)."
    )


@contextlib.contextmanager
def serving(
    page: gr.Blocks, *, host: str, port: int | None, most_megabytes: float
) -> Iterator[str]:
    """Serve the page while the block runs; yields its address.

    Raises:
        OSError: the port is taken.
    """
    if port is not None:
        with socket.socket() as other:
            if other.connect_ex((host, port)) == 0:
                raise OSError(f"port={port}: taken by another program; give another, or none")
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            max_file_size=int(most_megabytes * 1024**2),
            state_session_capacity=MOST_VISITORS,
            theme=gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=["monospace"]),
            css=STYLE,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
        )
        yield url
    finally:
        page.close(verbose=False)


def wait() -> None:
    """Until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _close(visit: Visit | None) -> None:
    if visit is not None:
        visit.close()

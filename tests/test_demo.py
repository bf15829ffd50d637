"""`python -m prnet.demo` where it cannot start; tests/page has the page itself."""

import sys

import pytest

from prnet.demo import the_page


def test_without_gradio_the_extra_is_named(monkeypatch):
    for module in [name for name in sys.modules if name.startswith(("gradio", "prnet.page"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r'needs gradio, .*: pip install "prnet\[demo\]"'):
        the_page()

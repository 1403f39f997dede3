from html.parser import HTMLParser

import pytest
import torch

from diffusion.data import Digits
from diffusion.metrics import LeNet


@pytest.fixture(scope="session")
def digits():
    return Digits()


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def lenet(digits, cache):
    """Trained once for all tests."""
    extractor = LeNet()
    extractor.prepare(digits, cache, progress=False)
    return extractor


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Page(HTMLParser):
    """What a browser would fetch, and what it would show."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.urls, self.text, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img", "br", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("rect", "path"):
            return
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def check_alone(text):
    """The page, if a browser needs nothing else for it."""
    page = Page(text)
    assert page.open == []
    assert all(url.startswith("data:image/png;base64,") for url in page.urls)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    return page


@pytest.fixture
def parsed():
    return Page


@pytest.fixture
def alone():
    return check_alone

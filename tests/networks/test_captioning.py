"""A vocabulary that decodes, a decoder that is causal, and searches against brute force."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from diffusion.networks import (
    Beam,
    CaptionNetwork,
    ClassifierNetwork,
    CountedColours,
    Sampling,
    ViT,
)
from diffusion.networks.captioning.vocabulary import BYTES, END, Vocabulary

TEXTS = ["a red fox, asleep", "a red hat's brim", "a fox in a hat", "ein Füchschen – 狐 🦊\n\n_x_ "]


def network(words=(), length=6, **kwargs):
    torch.manual_seed(1)
    made = CaptionNetwork(ViT(8, 3, 4, 16, 1, 2, 6), 16, 1, 2, 2, length, 300, **kwargs).eval()
    made.vocabulary.learn([f"{word}{word}" for word in words])
    for name, weight in made.named_parameters():  # so that captions differ
        if not name.startswith("image."):
            torch.nn.init.normal_(weight, std=0.5)
    return made


def looked(made, n=3):
    x = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, made.look(x)[1]


def nothing():
    raise AssertionError("nothing is to be drawn")


@pytest.mark.parametrize("learned", [[], TEXTS])
def test_every_text_comes_back(learned):
    vocabulary = Vocabulary(300, 200)
    vocabulary.learn(learned)
    for text in [*TEXTS, "", " ", "never seen", "\0", "a\tb  c'd-e"]:
        tokens = vocabulary.tokens(text)
        assert vocabulary.text(tokens) == text
        assert END not in tokens
        assert all(0 < token < vocabulary.size for token in tokens)


def test_a_word_of_training_is_one_token_and_others_are_spelled():
    vocabulary = Vocabulary(300, 200)
    vocabulary.learn(TEXTS[:1])
    assert {*vocabulary.words} == {" red", " fox", " asleep"}
    assert [len(vocabulary.tokens(text)) for text in (" red", " hat", " fox,")] == [1, 4, 2]


def test_what_is_learned_later_moves_no_token():
    vocabulary = Vocabulary(BYTES + 4, 200)
    vocabulary.learn(["x ab ab cd cd cd"])
    assert vocabulary.words == [" cd", " ab"]
    vocabulary.learn(["x ef ef ef ef gh gh"])
    assert vocabulary.words == [" cd", " ab", " ef"]  # and there is no room for " gh"
    assert vocabulary.size == vocabulary.rows


def test_letters_have_no_more_room_than_the_buffer():
    vocabulary = Vocabulary(BYTES + 2, 200)
    long = "w" * len(vocabulary.letters)
    vocabulary.learn([f"x {long} {long} b2 b2"])
    assert vocabulary.words == [] or vocabulary.words == [" b2"]
    assert vocabulary.text(vocabulary.tokens(long)) == long


def test_words_are_part_of_the_state():
    vocabulary, other = Vocabulary(300, 200), Vocabulary(300, 200)
    vocabulary.learn(TEXTS)
    other.load_state_dict(vocabulary.state_dict())
    assert other.words == vocabulary.words
    assert other.tokens(TEXTS[0]) == vocabulary.tokens(TEXTS[0])


def test_tokens_end_and_are_cut():
    vocabulary = Vocabulary(300, 4)
    tokens = vocabulary.read(["ab", "abcdef"])
    assert tokens.tolist() == [[98, 99, 0, -1], [98, 99, 100, 101]]
    assert vocabulary.cut(["ab", "abc", "abcd"]) == 1
    assert vocabulary.text(tokens[1].tolist()) == "abcd"


def test_bytes_that_are_no_text_are_shown_as_such():
    assert Vocabulary().text([1 + 0xC3]) == "\ufffd"


def test_no_token_reads_those_behind_it():
    made = network(length=6)
    x, _ = looked(made)
    tokens = torch.randint(1, BYTES, (3, 6))
    logits, _, g = made(x, tokens)
    for i in range(6):
        changed = tokens.clone()
        changed[:, i] = tokens[:, i] % (BYTES - 1) + 1
        others, _, other_g = made(x, changed)
        torch.testing.assert_close(others[:, : i + 1], logits[:, : i + 1])
        if i < 5:
            assert (others[:, i + 1 :] - logits[:, i + 1 :]).abs().amin(0).amax(1).min() > 1e-3
            assert not torch.allclose(g, other_g)


def test_padding_changes_nothing():
    made = network()
    x, _ = looked(made)
    texts, read = ["a", "bcd", "ef"], made.vocabulary.read
    alone = [made(x[i : i + 1], read([text])) for i, text in enumerate(texts)]
    logits, f, g = made(x, read(texts))
    for i, (own, own_f, own_g) in enumerate(alone):
        torch.testing.assert_close(logits[i, : own.shape[1]], own[0])
        torch.testing.assert_close((f[i], g[i]), (own_f[0], own_g[0]))


def test_the_cache_changes_nothing():
    made = network()
    _, states = looked(made)
    tokens = torch.randint(0, BYTES, (3, 6))
    whole, past = made.decode(tokens, states), made.decoder.past()
    steps = [made.decode(tokens[:, i : i + 1], states, past) for i in range(6)]
    for half in (0, 1):
        found = torch.cat([step[half] for step in steps], 1)
        torch.testing.assert_close(found, whole[half], rtol=1e-4, atol=1e-5)


def test_greedy_takes_the_likeliest_after_the_true_ones():
    made = network(length=5)
    x, states = looked(made)
    tokens, log_p = Beam(1)(made, states, nothing)
    ends = (tokens == END).cumsum(1)
    given = tokens.masked_fill(ends - (tokens == END).long() > 0, -1)
    logits = made(x, given)[0]
    there = given >= 0
    assert (logits.argmax(2) == given)[there].all()
    total = -F.cross_entropy(logits.transpose(1, 2), given, ignore_index=-1, reduction="none")
    torch.testing.assert_close(total.sum(1), log_p, rtol=1e-4, atol=1e-4)


def brute(made, states, length):
    """log p of every caption of up to so many tokens of a few, by the whole network at once."""
    best = -torch.inf
    for n in range(length + 1):
        for tokens in itertools.product(range(1, 4), repeat=n):
            ids = torch.tensor([[*tokens, END][:length]])
            given = F.pad(ids, (1, 0))[:, :-1]
            log_p = made.logits(made.decode(given, states)[1]).log_softmax(2)
            best = max(best, log_p.gather(2, ids[..., None]).sum().item())
    return best


def test_a_wide_beam_finds_the_likeliest_of_all(monkeypatch):
    """Three tokens and the end, up to three long: 16 beginnings are all there are."""
    made = network(length=3)
    monkeypatch.setattr(Vocabulary, "size", 4)
    states = looked(made)[1]
    tokens, log_p = Beam(16)(made, states, nothing)
    expected = [brute(made, picture, 3) for picture in states.split(1)]
    torch.testing.assert_close(log_p, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    greedy = Beam(1)(made, states, nothing)[1]
    assert (log_p > greedy + 1e-3).any()  # or else this would show nothing
    given = F.pad(tokens, (1, 0))[:, :-1]
    own = made.logits(made.decode(given, states)[1]).log_softmax(2).gather(2, tokens[..., None])
    there = (tokens == END).cumsum(1) - (tokens == END).long() == 0
    torch.testing.assert_close((own[..., 0] * there).sum(1), log_p, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_beam_is_never_less_likely_than_greedy(width):
    made = network(length=8)
    states = looked(made, 40)[1]
    greedy, wide = (Beam(w)(made, states, nothing)[1] for w in (1, width))
    assert (wide >= greedy - 1e-4).all()
    assert (wide > greedy + 1e-3).any()


def test_without_spelling_all_words_are_whole():
    made = network(words=[" ab", " cd"], length=8)
    states = looked(made, 20)[1]
    spelled, whole = (Beam(2, spell)(made, states, nothing)[0] for spell in (True, False))
    letters = [1 + byte for byte in b"xyz \xc3"]
    assert made.vocabulary.spelling(states.device)[letters].all()
    assert not made.vocabulary.spelling(states.device)[[END, 1 + ord(","), BYTES + 1]].any()
    assert made.vocabulary.spelling(states.device)[whole[:, 1:]].any().item() is False
    assert made.vocabulary.spelling(states.device)[spelled[:, 1:]].any()


def test_sampling_draws_from_the_head():
    """p = ½, ¼, ⅛, ⅛: 0.7 is reached by the first two; at temperature ½ the squares count."""
    logits = torch.tensor([0.125, 0.5, 0.125, 0.25]).log().expand(1000, 4)
    u = (torch.arange(1000) + 0.5) / 1000

    def shares(temperature, top_p):
        drawn = Sampling(temperature, top_p).drawn(logits, u)
        return (drawn.bincount(minlength=4) / 1000).tolist()

    assert shares(1.0, 1.0) == pytest.approx([0.125, 0.5, 0.125, 0.25], abs=2e-3)
    assert shares(1.0, 0.7) == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=2e-3)
    squares = [1, 16, 1, 4]
    assert shares(0.5, 1.0) == pytest.approx([x / 22 for x in squares], abs=2e-3)
    assert shares(1.0, 0.1) == [0, 1, 0, 0]


def test_sampling_has_the_models_own_log_likelihood():
    made = network()
    x, states = looked(made)
    drawn = iter(torch.rand(6, 3))
    tokens, log_p = Sampling(2.0, 0.8)(made, states, lambda: next(drawn))
    there = (tokens == END).cumsum(1) - (tokens == END).long() == 0
    given = tokens.masked_fill(~there, -1)
    own = F.cross_entropy(
        made(x, given)[0].transpose(1, 2), given, ignore_index=-1, reduction="none"
    )
    torch.testing.assert_close(-own.sum(1), log_p, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "made", [lambda: Sampling(0.0), lambda: Sampling(1.0, 0.0), lambda: Beam(0)]
)
def test_searches_have_a_range(made):
    with pytest.raises(ValueError, match="expected"):
        made()


def test_towers_show_what_they_pool():
    """A ViT's vector is of its first state; a classifier's is pooled from all positions."""
    x, t = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    vit = ViT(8, 3, 4, 16, 1, 2, 6)
    vector, states = vit.look(x, t)
    assert states.shape == (2, 1 + 4, vit.state_width)
    torch.testing.assert_close(vector, vit.out(states[:, 0]))
    small = {"image_size": 8, "channels": 8, "multipliers": (1, 2), "attention": (), "groups": 4}
    conv = ClassifierNetwork(**small, head_width=4, blocks=1, num_classes=5).eval()
    vector, states = conv.look(x, t)
    assert states.shape == (2, 16, conv.state_width)
    torch.testing.assert_close(vector, conv.pool(states.transpose(1, 2).unflatten(2, (4, 4))))
    torch.testing.assert_close(vector, conv(x, t))


def test_colours_are_counted_pixel_by_pixel_in_their_part():
    torch.manual_seed(0)
    tower = ViT(8, 3, 4, 16, 1, 2, 6)
    made = CountedColours(tower, units=24, cells=2).eval()
    x, t = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    vector, states = made.look(x, t)
    plain, before = tower.look(x, t)
    assert torch.equal(vector, plain)
    assert torch.equal(states[:, :-5], before)
    assert made.state_width == tower.state_width == states.shape[2]
    order = torch.randperm(16)  # within the upper left part
    shuffled = x.clone()
    shuffled[:, :, :4, :4] = x[:, :, :4, :4].flatten(2)[:, :, order].unflatten(2, (4, 4))
    torch.testing.assert_close(made.look(shuffled, t)[1][:, -5:], states[:, -5:])
    found = states[:, -5:] - made.place
    turned = made.look(x.roll(4, 3), t)[1][:, -5:] - made.place  # left and right parts change
    torch.testing.assert_close(turned[:, [0, 2, 1, 4, 3]], found)
    share = 0.25  # of the picture is one colour, the rest another: the mean of what each gives
    two = torch.ones(1, 3, 8, 8)
    two[:, :, :4, :4] = -0.5
    one, other = (made.look(torch.full_like(two, v), t[:1])[1][0, -5] for v in (-0.5, 1.0))
    mixed = made.look(two, t[:1])[1][0, -5]
    torch.testing.assert_close(mixed, share * one + (1 - share) * other)


def test_counted_colours_need_whole_parts():
    with pytest.raises(ValueError, match=r"network\.cells: 3; expected a divisor of 8"):
        CountedColours(ViT(8, 3, 4, 16, 1, 2, 6), cells=3)

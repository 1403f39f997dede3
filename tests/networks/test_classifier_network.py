import pytest
import torch

from diffusion.networks import ClassifierNetwork


def tiny(**changes):
    settings = {"channels": 16, "multipliers": (1, 2), "attention": (7,), "blocks": 1}
    settings |= {"num_classes": 10, "patch": 2, "head_width": 8}
    return ClassifierNetwork(28, 1, **{**settings, **changes})


def batch(n=4):
    torch.manual_seed(1)
    return torch.randn(n, 1, 28, 28), torch.randint(1, 1001, (n,))


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    network = tiny()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def test_it_says_what_it_takes(classifier):
    assert (classifier.num_classes, classifier.in_channels, classifier.image_size) == (10, 1, 28)
    assert classifier.factor == 4
    assert classifier.null == {}
    assert classifier.conditions == ()
    assert classifier(*batch()).shape == (4, 10)


def test_logits_depend_on_the_time_and_on_every_pixel(classifier):
    x_t, t = batch(1)
    assert (classifier(x_t, t) - classifier(x_t, t // 2)).abs().max() > 1e-3
    x_t.requires_grad_()
    (grad,) = torch.autograd.grad(classifier(x_t, t).log_softmax(1)[:, 3].sum(), x_t)
    assert (grad != 0).all()


def test_a_sum_over_samples_has_the_gradient_of_each(classifier):
    """What classifier guidance relies on: samples do not see each other."""
    x_t, t = batch()

    def gradient(x_t, t):
        x_t = x_t.clone().requires_grad_()
        log_p = classifier(x_t, t).log_softmax(1)[:, 3].sum()
        return torch.autograd.grad(log_p, x_t)[0]

    alone = torch.cat([gradient(x_t[i : i + 1], t[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(gradient(x_t, t), alone, rtol=1e-4, atol=1e-6)


def test_mean_pooling_starts_at_zero_and_takes_any_size():
    network = tiny(pool="mean")
    t = torch.tensor([5])
    assert torch.equal(network(torch.randn(1, 1, 28, 28), t), torch.zeros(1, 10))
    assert network(torch.randn(1, 1, 36, 20), t).shape == (1, 10)


def test_attention_pooling_says_which_size_it_is_for(classifier):
    with pytest.raises(ValueError, match=r"image_size: 28; expected \(36, 20\)"):
        classifier(torch.randn(1, 1, 36, 20), torch.tensor([5]))


def test_checkpointing_changes_no_gradient(classifier):
    x_t, t = batch()
    twin = tiny(checkpointing=True)
    twin.load_state_dict(classifier.state_dict())
    for network in (classifier, twin):
        network(x_t, t).square().mean().backward()
    pairs = zip(classifier.parameters(), twin.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs)


def test_channels_last_equals_contiguous(classifier):
    x_t, t = batch()
    expected = classifier(x_t, t)
    fast = classifier.to(memory_format=torch.channels_last)
    output = fast(x_t.to(memory_format=torch.channels_last), t)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_forward_is_one_graph(classifier):
    x_t, t = batch()
    compiled = torch.compile(classifier, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x_t, t), classifier(x_t, t))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 0}, "num_classes: 0"),
        ({"head_width": 5}, "head_width: 5; expected a divisor of the 32 channels"),
        ({"attention": (8,)}, r"attention: \[8\]; expected resolutions among \[14, 7\]"),
        ({"blocks": 0}, "blocks: 0"),
    ],
)
def test_sizes_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)

import pytest
import torch

from diffusion.networks import MLP


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    network = MLP(dim=3, width=16, depth=2, num_classes=5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def test_output_is_zero_at_initialisation():
    network = MLP()
    assert network.null == {}
    output = network(torch.randn(4, 2), torch.tensor([1, 2, 500, 1000]))
    assert torch.equal(output, torch.zeros(4, 2))


def test_time_and_label_change_output(mlp):
    x_t = torch.randn(1, 3).expand(4, 3)
    t, label = torch.tensor([1, 1, 900, 1]), torch.tensor([0, 1, 0, 5])
    output = mlp(x_t, t, label=label)
    assert torch.pdist(output).min() > 1e-3
    torch.testing.assert_close(output[3:], mlp(x_t[3:], t[3:]))


def test_null_row_is_trained(mlp):
    mlp(torch.randn(2, 3), torch.tensor([1, 9]), label=torch.tensor([5, 2])).sum().backward()
    used = mlp.embedding.label.weight.grad.abs().sum(dim=1) > 0
    assert used.nonzero().flatten().tolist() == [2, 5]


@pytest.mark.parametrize("settings", [{"width": 7}, {"depth": 0}, {"dim": 0}, {"num_classes": 0}])
def test_sizes_out_of_range(settings):
    (key,) = settings
    with pytest.raises(ValueError, match=rf"{key}(=|: ){settings[key]}"):
        MLP(**settings)

"""The decoder's transformer: Wan to the last bit at first, causal over chunks, one noise level a frame."""

import pytest
import torch
from diffusers import WanTransformer3DModel

from worldgym.decoders.wan import Condition, ConditionedWan

STATE = 12


def tiny_wan(**changes) -> WanTransformer3DModel:
    torch.manual_seed(0)
    sizes = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4,
        "out_channels": 4, "text_dim": 8, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
    }  # fmt: skip
    return WanTransformer3DModel(**{**sizes, **changes})


@pytest.fixture
def model() -> ConditionedWan:
    return ConditionedWan(tiny_wan(), STATE).eval()


def wake(model: ConditionedWan) -> ConditionedWan:
    """The state attention as training would leave it: no longer zero."""
    torch.manual_seed(1)
    for layer in model.layers:
        torch.nn.init.normal_(layer.state.out.weight, std=0.3)
    return model


def inputs(chunks: int, frames: int = 5) -> tuple[torch.Tensor, torch.Tensor, Condition]:
    torch.manual_seed(2)
    condition = Condition(torch.randn(2, chunks, 6, 8), torch.randn(2, chunks, 3, STATE))
    return torch.randn(2, 4, frames, 8, 6), torch.rand(2, frames), condition


@torch.no_grad()
def test_it_starts_as_the_wan_that_was_loaded(model):
    latents, _, condition = inputs(1)
    level = torch.tensor([0.3, 0.8])
    expected = tiny_wan().eval()(latents, level * 1000, condition.text[:, 0]).sample
    found, _ = model(latents, level[:, None].expand(-1, 5), condition, (5,))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_state_attention_at_zero_changes_not_one_bit(model):
    latents, levels, condition = inputs(2)
    without = model(latents, levels, condition._replace(state=None), (3, 2))[0]
    assert torch.equal(model(latents, levels, condition, (3, 2))[0], without)
    assert not torch.equal(wake(model)(latents, levels, condition, (3, 2))[0], without)


def test_the_zero_layer_learns_from_the_first_step(model):
    latents, levels, condition = inputs(2)
    model(latents, levels, condition, (3, 2))[0].square().mean().backward()
    assert all(layer.state.out.weight.grad.abs().sum() > 0 for layer in model.layers)


@torch.no_grad()
def test_noise_levels_for_each_frame_are_those_that_wan_takes_for_each_token(model):
    latents, levels, condition = inputs(1)
    by_token = (levels * 1000).repeat_interleave(12, 1)
    expected = tiny_wan().eval()(latents, by_token, condition.text[:, 0]).sample
    torch.testing.assert_close(model(latents, levels, condition, (5,))[0], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("changed", ["latents", "levels", "text", "state"])
def test_nothing_of_the_late_chunk_reaches_the_early_one(model, changed):
    wake(model)
    latents, levels, condition = inputs(2)
    before = model(latents, levels, condition, (3, 2))[0]
    parts = {"latents": latents, "levels": levels, "text": condition.text, "state": condition.state}
    parts = {name: part.clone() for name, part in parts.items()}
    match changed:
        case "latents":
            parts["latents"][:, :, 3:] += 1
        case "levels":
            parts["levels"][:, 3:] = 0.9
        case _:
            parts[changed][:, 1] += 1
    after = model(parts["latents"], parts["levels"], Condition(parts["text"], parts["state"]), (3, 2))[0]
    assert torch.equal(after[:, :, :3], before[:, :, :3])
    assert not torch.allclose(after[:, :, 3:], before[:, :, 3:], atol=1e-4)


@torch.no_grad()
def test_the_late_chunk_sees_the_early_one(model):
    latents, levels, condition = inputs(2)
    before = model(latents, levels, condition, (3, 2))[0]
    latents[:, :, 0] += 1
    assert not torch.allclose(model(latents, levels, condition, (3, 2))[0][:, :, 3:], before[:, :, 3:], atol=1e-4)


@torch.no_grad()
def test_from_kept_keys_the_late_chunk_is_what_it_is_in_the_whole_window(model):
    wake(model)
    latents, levels, condition = inputs(2)
    whole = model(latents, levels, condition, (3, 2))[0]
    one, two = (Condition(condition.text[:, i : i + 1], condition.state[:, i : i + 1]) for i in (0, 1))
    early, keys = model(latents[:, :, :3], levels[:, :3], one, (3,))
    late, _ = model(latents[:, :, 3:], levels[:, 3:], two, (2,), keys)
    torch.testing.assert_close(torch.cat([early, late], 2), whole, rtol=1e-5, atol=1e-5)


def test_checkpointing_the_layers_changes_no_gradient(model):
    wake(model).train()
    latents, levels, condition = inputs(2)
    gradients = []
    for model.gradient_checkpointing in (False, True):
        model.zero_grad()
        model(latents, levels, condition, (3, 2))[0].square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 50
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_a_folder_that_diffusers_wrote_is_read_and_written(tmp_path, model):
    tiny_wan().save_pretrained(tmp_path / "pipeline" / "transformer")
    latents, levels, condition = inputs(2)
    fresh = ConditionedWan.load(str(tmp_path / "pipeline"), STATE)
    torch.testing.assert_close(
        fresh(latents, levels, condition, (3, 2))[0], model(latents, levels, condition, (3, 2))[0]
    )
    wake(fresh).save(tmp_path / "trained")
    again = ConditionedWan.load(str(tmp_path / "trained"), STATE)
    assert torch.equal(again(latents, levels, condition, (3, 2))[0], fresh(latents, levels, condition, (3, 2))[0])
    plain = WanTransformer3DModel.from_pretrained(tmp_path / "trained")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), tiny_wan().parameters(), strict=True))


@torch.no_grad()
def test_the_same_decoder_with_weights_that_were_gathered(model):
    latents, levels, condition = inputs(2)
    expected = wake(model)(latents, levels, condition, (3, 2))[0]
    gathered = {name: part.clone() for name, part in model.state_dict().items()}
    assert {str(part.device) for part in model.holding(gathered).state_dict().values()} == {"cpu"}
    gathered["wan.proj_out.bias"] += 1
    assert torch.equal(model(latents, levels, condition, (3, 2))[0], expected)


def test_a_state_of_another_width_is_refused(tmp_path, model):
    model.save(tmp_path)
    with pytest.raises(ValueError, match="do not fit"):
        ConditionedWan.load(str(tmp_path), STATE + 1)


def test_an_image_to_video_wan_is_refused():
    with pytest.raises(ValueError, match="text-to-video"):
        ConditionedWan(tiny_wan(image_dim=8, added_kv_proj_dim=24), STATE)

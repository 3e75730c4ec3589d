"""The conversation: what a round's queries see, and that the frozen model stays as it was."""

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from worldgym.pan.backbone import MEAN, NO, QUERY, SEEN, SPREAD, YES, ConversationConfig, PanBackbone, patchify

CONFIG = ConversationConfig(queries=3, rounds=4, frames=2, height=56, width=84)


@pytest.fixture
def backbone(vlm) -> PanBackbone:
    torch.manual_seed(1)
    return PanBackbone.load(str(vlm), CONFIG).eval()


def talk(backbone: PanBackbone, rounds: int = 3):
    """What two conversations of so many rounds saw and said."""
    chance = torch.Generator().manual_seed(2)
    videos = torch.randint(0, 256, (rounds, 2, 5, 56, 84, 3), generator=chance, dtype=torch.uint8)
    actions = [["push left", "go up", "stay"][:rounds], ["a much longer thing to do", "b", "c"][:rounds]]
    return [backbone.see(video) for video in videos], actions


@torch.no_grad()
def test_a_state_is_as_many_tokens_as_there_are_queries(backbone):
    seen, actions = talk(backbone)
    assert seen[0].shape == (2, 2 * 3, 48)
    states = backbone(seen, actions, [None] * 3)
    assert states.shape == (2, 3, 3, 48) and states.isfinite().all()


@torch.no_grad()
def test_patches_stand_as_the_librarys_processor_puts_them():
    picture = np.random.default_rng(0).integers(0, 256, (56, 84, 3), np.uint8)
    processor = Qwen2VLImageProcessorPil(min_pixels=1, max_pixels=10**6)
    expected = processor(picture, return_tensors="pt")
    images = (torch.from_numpy(picture).permute(2, 0, 1) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(
        SPREAD
    )[:, None, None]
    found = patchify(images.expand(1, 2, -1, -1, -1), 2, 14, 2)[0]
    torch.testing.assert_close(found, expected.pixel_values, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_future_changes_no_state(backbone):
    seen, actions = talk(backbone)
    before = backbone(seen, actions, [None] * 3)
    seen[2] = seen[2] + 1
    actions = [[*said[:2], "stay put"] for said in actions]
    after = backbone(seen, actions, [None] * 3)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2], before[:, 2], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("what", ["seen", "said"])
def test_the_past_changes_states(backbone, what):
    seen, actions = talk(backbone)
    before = backbone(seen, actions, [None] * 3)
    if what == "seen":
        seen[0] = seen[0] + 1
    else:
        actions = [["push down!", *said[1:]] for said in actions]
    assert not torch.allclose(backbone(seen, actions, [None] * 3)[:, 2], before[:, 2], atol=1e-3)


@torch.no_grad()
def test_a_conversation_is_the_same_alone_and_beside_a_longer_one(backbone):
    seen, actions = talk(backbone)
    together = backbone(seen, actions, [None] * 3)
    alone = backbone([part[:1] for part in seen], actions[:1], [None] * 3)
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_there_may_be_more_conversations_than_a_conversation_has_tokens(backbone):
    seen = [torch.zeros(70, 6, 48)]
    states = backbone(seen, [["a"]] * 70, [None])
    assert len(backbone._write(["a"], 6, [False])[0]) < 70
    torch.testing.assert_close(states[-1], states[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_past_rounds_queries_are_seen_by_nobody_else(backbone):
    seen, actions = talk(backbone)
    before = backbone(seen, actions, [None] * 3)
    asked = []

    def spoil(module, args, kwargs):
        tokens = kwargs["inputs_embeds"].clone()
        kinds = torch.tensor(backbone._write(actions[0], seen[0].shape[1], [False] * 3)[1])
        first = torch.nonzero(kinds == QUERY).flatten()[:3]
        tokens[0, first] += 1.0
        asked.append(first)
        return args, {**kwargs, "inputs_embeds": tokens}

    handle = backbone.vlm.language_model.register_forward_pre_hook(spoil, with_kwargs=True)
    after = backbone(seen, actions, [None] * 3)
    handle.remove()
    assert len(asked) == 1
    assert not torch.allclose(after[0, 0], before[0, 0], atol=1e-3)
    torch.testing.assert_close(after[0, 1:], before[0, 1:])


@torch.no_grad()
def test_the_enhanced_state_has_what_was_predicted_too(backbone):
    seen, actions = talk(backbone, 2)
    plain = backbone(seen, actions, [None, None])
    enhanced = backbone(seen, actions, [None, plain[:, 0]])
    torch.testing.assert_close(enhanced[:, 0], plain[:, 0])
    assert not torch.allclose(enhanced[:, 1], plain[:, 1], atol=1e-3)
    _, kinds, _ = backbone._write(actions[0], 6, [False, True])
    assert kinds.count(SEEN) == 12 and kinds.count(QUERY) == 6


def test_only_the_queries_learn(backbone):
    seen, actions = talk(backbone)
    backbone(seen, actions, [None] * 3).square().mean().backward()
    assert [name for name, part in backbone.named_parameters() if part.grad is not None] == ["queries"]
    assert backbone.queries.grad.abs().sum() > 0


@torch.no_grad()
def test_what_was_trained_is_saved_and_read(vlm, backbone, tmp_path):
    backbone.save(tmp_path)
    again = PanBackbone.load(str(vlm), CONFIG, tmp_path)
    seen, actions = talk(backbone)
    assert torch.equal(again.eval()(seen, actions, [None] * 3), backbone(seen, actions, [None] * 3))
    with pytest.raises(ValueError, match="was trained as"):
        PanBackbone.load(str(vlm), ConversationConfig(queries=5, frames=2, height=56, width=84), tmp_path)


def test_lora_adapts_the_attention_and_begins_as_nothing(vlm, backbone):
    torch.manual_seed(1)
    config = ConversationConfig(queries=3, rounds=4, frames=2, height=56, width=84, lora_rank=2)
    adapted = PanBackbone.load(str(vlm), config).eval()
    seen, actions = talk(backbone)
    adapted.load_state_dict({"queries": backbone.queries.detach()}, strict=False)
    torch.testing.assert_close(adapted(seen, actions, [None] * 3), backbone(seen, actions, [None] * 3))
    assert len(adapted.trained()) == 1 + 2 * 4 * 2


def test_more_rounds_than_it_remembers_are_refused(backbone):
    seen, actions = talk(backbone)
    with pytest.raises(ValueError, match="at most 4 rounds"):
        backbone(seen * 2, [said * 2 for said in actions], [None] * 6)


def test_frames_that_do_not_divide_into_patches_are_refused(vlm):
    with pytest.raises(ValueError, match="28 x 28"):
        PanBackbone.load(str(vlm), ConversationConfig(height=100))


@torch.no_grad()
def test_it_answers_as_the_librarys_own_model_does(vlm):
    """The head is loaded with the model, and the picture stands where the processor would put it."""
    speaker = PanBackbone.load(str(vlm), CONFIG, speaks=True).eval()
    frames = torch.randint(0, 256, (2, 56, 84, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    found = speaker.agrees(frames, "Is it red?")
    whole = Qwen2_5_VLForConditionalGeneration.from_pretrained(vlm).eval()
    processor = Qwen2VLImageProcessorPil(min_pixels=1, max_pixels=10**6)
    for row in range(2):
        shown = processor(frames[row].numpy(), return_tensors="pt")
        marks = "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * 6
        asked = marks + "<|vision_end|>Is it red?<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor([speaker.text.encode(asked, add_special_tokens=False)])
        kinds = (ids == whole.config.image_token_id).int()
        logits = whole(input_ids=ids, **shown, mm_token_type_ids=kinds).logits[0, -1]
        yes, no = (logits[[speaker.text.encode(word)[0] for word in words]].logsumexp(0) for words in (YES, NO))
        torch.testing.assert_close(found[row], torch.sigmoid(yes - no), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(speaker.agrees(frames, "Is it blue?"), found, atol=1e-7)


def test_without_its_head_it_answers_nothing(backbone):
    with pytest.raises(ValueError, match="speaks=True"):
        backbone.agrees(torch.zeros(1, 56, 84, 3, dtype=torch.uint8), "Is it red?")


@torch.no_grad()
def test_adapters_have_no_say_in_an_answer(vlm):
    frames = torch.zeros(1, 56, 84, 3, dtype=torch.uint8)
    plain = PanBackbone.load(str(vlm), CONFIG, speaks=True).eval()
    config = ConversationConfig(queries=3, rounds=4, frames=2, height=56, width=84, lora_rank=2)
    adapted = PanBackbone.load(str(vlm), config, speaks=True).eval()
    for name, part in adapted.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(part)
    assert torch.equal(adapted.agrees(frames, "Is it red?"), plain.agrees(frames, "Is it red?"))
    seen, actions = talk(adapted)
    assert not torch.allclose(adapted(seen, actions, [None] * 3), plain(seen, actions, [None] * 3), atol=1e-3)

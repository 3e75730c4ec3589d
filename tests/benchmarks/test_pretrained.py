"""benchmarks/pretrained.py: the wordings that teach and judge, the frozen model and its cache, and the judge."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from worldgym.config import WorldConfig
from worldgym.errors import UserError
from worldgym.world import WorldModel

SAID = ["push it left please", "wait"]


@pytest.fixture
def bench(load_benchmark):
    return load_benchmark("pretrained")


@pytest.fixture
def folder(tmp_path):
    """A language model of one layer, with a tokenizer of words."""
    words = ["<pad>", "push", "it", "left", "please", "wait", "?"]
    tokens = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, "?"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", unk_token="?").save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaModel(LlamaConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path)
    return tmp_path


def backbone(bench, folder, arm):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return bench.Backbone(bench.language_model(folder, arm, 0), tokenizer, 5, 6)


def test_no_judged_wording_is_taught_and_every_phrase_has_as_many(bench):
    config: WorldConfig = WorldModel.load("tabletop", "cpu").config
    taught = bench.taught_wordings(config.phrases)
    judged = {bench._letters(said) for meant in bench.judged_wordings().values() for said in meant}
    assert all(len(set(row)) == bench.WORDINGS for row in taught)
    assert not judged & {bench._letters(said) for row in taught for said in row if said not in config.phrases}


def test_a_table_on_which_nothing_moves_is_the_start_and_only_what_is_trained_learns(bench, folder):
    model = backbone(bench, folder, bench.Arm(bench.PRETRAINED, 1))
    frozen = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    table = bench.Table(torch.randn(4, 5), torch.zeros(4, 6), torch.ones(4, 6))
    still = bench.predict(model, table, [SAID[0]] * 4)
    assert still.shape == (4, 3, 2) and not still.any()
    config = bench.Pretrained(steps=2, batch=4)
    bench.train(model, table, [SAID], np.zeros(4, int), bench.Arm(bench.PRETRAINED, 1), config, 0)
    assert bench.predict(model, table, [SAID[0]] * 4).any()
    assert all(torch.equal(weight, frozen[name]) for name, weight in model.model.state_dict().items())


def test_the_sentence_counts_and_its_cache_and_padding_do_not(bench, folder):
    model = backbone(bench, folder, bench.Arm(bench.PRETRAINED, 2)).float()
    torch.nn.init.normal_(model.leave.weight)
    state = torch.randn(1, 5).expand(2, -1)
    with torch.no_grad():
        both = model(state, model.read(SAID))
        alone = [model(state[:1], model.read([said])) for said in SAID]
        picked = model(state, bench.some(model.read(SAID), np.array([1, 1])))
    torch.testing.assert_close(both, torch.cat(alone))
    torch.testing.assert_close(picked[0], alone[1][0])
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_shuffled_weights_are_the_same_numbers_in_another_order(bench, folder):
    models = (bench.language_model(folder, bench.Arm(kind, 1), 0) for kind in (bench.PRETRAINED, bench.SHUFFLED))
    one, other = (model.layers[0].mlp.up_proj.weight for model in models)
    assert not torch.equal(one, other) and torch.equal(one.flatten().sort()[0], other.flatten().sort()[0])


def test_the_truth_has_no_error_and_a_still_table_all(bench):
    before, after = np.zeros((3, 3, 2)), np.zeros((3, 3, 2))
    after[:, :2] = [0.34, 0.0]
    cases = bench.Cases(np.zeros((3, 1, 1, 3), np.uint8), before, after, np.zeros(3, int), np.zeros((3, 1)))
    truth, still = bench.judge(after, cases), bench.judge(before, cases)
    assert (truth["relative"], truth["moved_error"], truth["moved"]) == (0.0, 0.0, 3)
    assert (still["relative"], still["moved_error"]) == (1.0, pytest.approx(1.0))


def test_figures_of_other_settings_are_not_continued(bench, tmp_path):
    path = tmp_path / "figures.json"
    found = bench.begun(path, {"steps": 1})
    assert found == {"settings": {"steps": 1}}
    bench.write_results(path, 0, found, "")
    assert bench.begun(path, {"steps": 1}) == found
    with pytest.raises(UserError, match="delete it or name another --json"):
        bench.begun(path, {"steps": 2})

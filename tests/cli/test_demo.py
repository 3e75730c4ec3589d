"""`make demo`: one page with everything inside."""

from dataclasses import replace

import imageio.v3 as iio

from worldgym.cli import demonstration


def test_the_page_shows_dreams_sentences_and_plans(make_world, tmp_path, monkeypatch, capsys):
    """Planning in the dream, which takes long, is left to test_cli.py."""
    world = make_world()
    world.config = replace(world.config, twin="worldgym/TabletopMuJoCo-v0")
    monkeypatch.setattr(
        demonstration, "WAYS", {way: demonstration.WAYS[way] for way in ("CEM on true physics", "random actions")}
    )
    # A tiny world knows few.
    monkeypatch.setattr(demonstration, "SENTENCES", world.config.phrases)
    path = demonstration.demonstrate(world, "tiny", tmp_path / "demo", episodes=1, seed=3)
    html = path.read_text(encoding="utf-8")
    assert html.count("data:image/gif") == 4 and html.count("data:image/png") == 3
    assert 'src="data:' in html and 'src="runs' not in html  # nothing beside it is needed
    rows = html.split("<tr>")
    assert "CEM on true physics" in rows[2] and rows[2].count("1 of 1") == 2  # reach and push: physics can
    assert "random actions" in rows[3] and rows[3].rstrip().count("-</td>") == 1  # random decisions take no time
    assert len(iio.imread(tmp_path / "demo" / "sentences.gif")) == 17
    assert str(path) in capsys.readouterr().out

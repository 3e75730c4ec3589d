"""The mistakes that tests must notice can still be made."""


def test_what_is_to_be_mistaken_stands_there_once(load_benchmark):
    benchmark = load_benchmark("mutations")
    for mutation in benchmark.MUTATIONS:
        ours = mutation.file.split("/")[0] in benchmark.FOLDERS
        file = benchmark.ROOT / ("" if ours else "worldgym") / mutation.file
        if mutation.right:
            assert file.read_text(encoding="utf-8").count(mutation.right) == 1, mutation.about
        else:
            assert file.exists(), mutation.about
        assert all((benchmark.ROOT / "tests" / name).exists() for name in mutation.tests), mutation.about

"""`python -m worldgym`, which launchers such as torchrun need: the command `worldgym`."""

from .cli.main import main

if __name__ == "__main__":
    main()

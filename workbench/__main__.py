"""`python -m workbench` is the `workbench` command, which is also how torchrun starts it."""

from workbench.cli.app import main

if __name__ == "__main__":
    main()

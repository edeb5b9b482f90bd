"""``python -m seqformer.evaluation GROUND_TRUTH RESULTS``: AP and identity errors of a results.json."""

from seqformer.cli.evaluate import main

if __name__ == "__main__":
    main()

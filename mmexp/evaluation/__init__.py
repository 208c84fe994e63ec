"""From questions and answers to scores: benchmarks, official scoring rules, generation, results."""

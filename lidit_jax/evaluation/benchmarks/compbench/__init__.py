"""T2I-CompBench, by its published rules.

suite        the benchmark: categories, records, metrics
attributes   BLIP-VQA: questions about noun chunks, and the product of their answers
detections   detections of an open-vocabulary detector
spatial      two objects in a relation
numeracy     the number of each object
chunks       a prompt's noun chunks and nouns, by spaCy if installed, else by rule
tagging      part-of-speech tags, by rule
words        function words, verbs and adjectives that the rules know
"""

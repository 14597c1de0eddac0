"""T2I-CompBench, by its published rules.

suite        the benchmark: categories, records, metrics
attributes   BLIP-VQA: questions of noun chunks, and their product
detections   what an open-vocabulary detector found
spatial      two objects in a relation
numeracy     so many of each object
chunks       a prompt's noun chunks and nouns, by spaCy if installed, else by rule
tagging      the class of each word, by rule
words        function words, verbs and adjectives that the rules know
"""

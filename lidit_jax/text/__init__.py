"""Prompts to LLM features.

instruct      prompt -> token ids
weights       an LLM's folder, GGUF file or Hugging Face id -> transformers
llm           ids -> states
encode        many captions
continuation  what an LLM writes after a prompt
"""

"""Prompts to LLM features: instruct (prompt -> token ids), weights, llm (ids -> states), encode (many captions)."""

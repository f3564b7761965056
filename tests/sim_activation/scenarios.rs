//! What a user would try first, step by step.

"""Text that people read: tokens made visible, and the glossary's one definition per term. Imports nothing of VISIT."""

"""What is asked of both models?"""

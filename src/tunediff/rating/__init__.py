"""What do people say of the replies, when they cannot know whose they are?"""

"""The web room: what annotators, testers and admins see and call. Of ours it imports `store` alone."""

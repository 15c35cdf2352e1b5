"""The program: the network, the model, training, evaluation, pictures, the command. The only folder that imports nn."""

__all__ = []

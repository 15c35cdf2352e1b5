"""Which lines of the project the page shows beside each panel, and the equation that they compute."""

__all__ = ["READINGS"]

ROOT_SIGNAL, ROOT_NOISE = "√<i>ᾱ<sub>t</sub></i>", "√(1 − <i>ᾱ<sub>t</sub></i>)"
XT, X0, EPS, X_HAT = "<i>x<sub>t</sub></i>", "<i>x</i><sub>0</sub>", "<i>ε</i>", "<i>x̂</i><sub>0</sub>"
XS, T = "<i>x</i><sub><i>t</i>−1</sub>", "<i>t</i>"

# panel: (name of a function, method or class; what it says, in HTML)
READINGS = {
    "scrub": (
        ("tinyddpm.forward:q_sample", f"{XT} = {ROOT_SIGNAL} {X0} + {ROOT_NOISE} {EPS}"),
        ("tinyddpm.schedule:NoiseSchedule.cosine", f"<i>ᾱ<sub>t</sub></i> ∝ cos²(({T}/T + s)/(1 + s) · π/2)"),
        ("tinyddpm.prediction:x0_from_v", f"{X_HAT} = {ROOT_SIGNAL} {XT} − {ROOT_NOISE} <i>v̂</i>"),
        ("tinyddpm.loss:l_simple", f"‖{EPS} − <i>ε̂</i>‖² / <i>d</i>"),
        (
            "tinyddpm.bound:denoising_term",
            f"<i>L</i><sub><i>t</i>−1</sub> = KL( <i>q</i>({XS} | {XT}, {X0}) ‖ <i>p</i>({XS} | {XT}) )",
        ),
    ),
    "sample": (
        ("tinyddpm.reverse:reverse_process", f"{XT} → {XS}, for {T} = T … 1"),
        ("tinyddpm.reverse:p_mean_variance", f"<i>p</i>({XS} | {XT}) = <i>q</i>({XS} | {XT}, {X_HAT})"),
        (
            "tinyddpm.samplers:ddim_step",
            f"{XS} = √<i>ᾱ</i><sub><i>t</i>−1</sub> {X_HAT} + √(1 − <i>ᾱ</i><sub><i>t</i>−1</sub>) <i>ε̂</i>",
        ),
        ("tinyddpm.program.model:guided", "null + <i>s</i> (conditional − null)"),
        ("nn.random:normal", f"{EPS}, from (seed, purpose, step, sample)"),
    ),
    "points": (
        ("points:Learner.step", f"min ‖target − network({XT}, {T})‖²"),
        ("points:Network", f"network({XT}, {T})"),
        (
            "tinyddpm.prediction:score_from_x0",
            f"∇ log <i>q</i> = −({XT} − {ROOT_SIGNAL} {X_HAT}) / (1 − <i>ᾱ<sub>t</sub></i>)",
        ),
        ("points:Learner.flow", "the chain, and the score at each of its steps"),
    ),
    "digits": (
        ("tinyddpm.program.train:Trainer.step", "loss, gradient, Adam, average"),
        ("tinyddpm.program.unet:UNet.__call__", f"network({XT}, {T}, label)"),
        ("nn.optim:Adam.update", "<i>m</i> / (√<i>v</i> + <i>ε</i>)"),
        ("nn.tape:gradients", "the walk back"),
    ),
    "check": (
        ("tinyddpm.properties.checks:check", "each identity, on drawn examples"),
        ("tinyddpm.properties.identities:posterior_mean", "Bayes’ rule"),
        ("tinyddpm.schedule:NoiseSchedule.from_beta", "<i>ᾱ<sub>t</sub></i> = ∏ (1 − <i>β<sub>s</sub></i>)"),
    ),
}

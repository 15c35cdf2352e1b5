"""The likelihood by the probability flow, against the closed form of a linear flow. (E42)"""

from dataclasses import replace

import numpy as np
import pytest
from small import BITS_CONFIG, CONFIG, HIGH, LOW, VARIANCE, VDM_CONFIG, Ideal, pictures

from tinyddpm.bound import bits_per_dim
from tinyddpm.gaussian import STANDARD_NORMAL, Gaussian
from tinyddpm.program.model import Model
from tinyddpm.theory.log_snr import signal_and_sigma

IMAGES = pictures(3)


def test_e42_of_gaussian_data_it_is_the_closed_form():
    """The flow of N(0, VARIANCE) stretches every value alike, from one standard deviation to the other."""
    model = Model(replace(VDM_CONFIG, preset="own", unet={}), network=Ideal())
    found = model.likelihood(IMAGES, labels=None, steps=50, batch=2, clip=None)
    x0, noise = model.x0(IMAGES.images), model.noise(0, "L_0", 0, np.arange(3))
    (signal, sigma), (far_signal, far_sigma) = signal_and_sigma(HIGH), signal_and_sigma(LOW)
    stretch = ((far_signal**2 * VARIANCE + far_sigma**2) / (signal**2 * VARIANCE + sigma**2)) ** 0.5
    z = (signal * x0 + sigma * noise).astype(np.float64)
    log_prob = STANDARD_NORMAL.log_prob(z * stretch) + 64 * np.log(stretch)
    nats = Gaussian(0.0, sigma**2).log_prob(sigma * noise.astype(np.float64)) - log_prob
    assert found.noised == pytest.approx(bits_per_dim(nats, 64).mean(), rel=1e-6)
    assert found.of_probes < 1e-6, "the Jacobian is diagonal: every probe gives its trace"
    assert found.total == pytest.approx(found.noised + found.bound.reconstruction, rel=1e-6)
    assert found.bound.total == model.evaluate(IMAGES, labels=None, batch=2, clip=None).total
    assert f"+- {found.standard_error:.4f}" in str(found)
    assert found.noised < found.bound.prior + found.bound.continuous[0], "the bound is looser"


@pytest.mark.parametrize("config", [CONFIG, VDM_CONFIG], ids=["gaussian", "vdm"])
def test_a_network_has_a_likelihood_with_labels_and_its_weights_stay_as_they_are(config):
    model = Model(config)
    rng = np.random.default_rng(1)
    for p in model.network.parameters():
        p.data[...] = p.data + np.float32(0.05) * rng.standard_normal(p.shape, dtype=np.float32)
    found, again = (model.likelihood(IMAGES, steps=1, probes=probes) for probes in (4, 16))
    assert np.isfinite(found.total) and found.bound.label > 0
    assert found.total == pytest.approx(found.noised + found.bound.reconstruction + found.bound.label, rel=1e-6)
    assert abs(found.total - again.total) < 6 * (found.of_probes + again.of_probes)
    assert 0 < again.of_probes < found.of_probes
    assert model.network.first.weight.dtype == np.float32


def test_what_has_no_flow_and_what_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="no probability flow"):
        Model(BITS_CONFIG).likelihood(IMAGES)
    with pytest.raises(ValueError, match="probes"):
        Model(CONFIG).likelihood(IMAGES, probes=1)

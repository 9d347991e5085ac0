"""Container ids and unit names in the forms that the container engines and systemd write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.discovery import cgroups

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


@pytest.mark.parametrize(
    "cgroup",
    [
        f"12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n",
        f"0::/system.slice/docker-{ID}.scope\n",
        f"0::/docker/{ID}/init.scope\n",
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-{ID}.scope\n",
        f"0::/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope\n",
        f"4:cpu:/kubepods/burstable/pod3ad1/{ID}\n",
        f"0::/system.slice/containerd.service/kubepods-burstable-pod3ad1.slice:cri-containerd:{ID}\n",
        f"0::/machine.slice/libpod-{ID}.scope/container\n",
        f"0::/system.slice/docker-{OTHER}.scope/docker/{ID}\n",
    ],
)
def test_container_ids(cgroup: str) -> None:
    assert cgroups.container_id(cgroup) == ID
    assert cgroups.service_unit(cgroup) == ""


@pytest.mark.parametrize(
    "cgroup", ["", "0::/\n", "0::/system.slice/nginx.service\n", f"0::/x/{ID}0\n", "garbage"]
)
def test_no_container(cgroup: str) -> None:
    assert cgroups.container_id(cgroup) == ""


def test_a_container_that_sees_itself_as_the_root() -> None:
    docker = f"711 700 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n"
    podman = f"9 8 0:23 /storage/overlay-containers/{ID}/userdata/hostname /etc/hostname rw - tmpfs t rw\n"
    sandbox = (
        f"9 8 0:23 /io.containerd.grpc.v1.cri/sandboxes/{ID}/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n"
    )
    host = f"99 24 0:50 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw\n"
    assert cgroups.container_id_from_mounts(host + docker) == ID
    assert cgroups.container_id_from_mounts(podman) == ID
    assert cgroups.container_id_from_mounts(sandbox) == ""
    assert cgroups.container_id_from_mounts(host) == ""
    assert cgroups.is_root("0::/\n")
    assert not cgroups.is_root("0::/system.slice/nginx.service\n")


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", "nginx"),
        ("/system.slice/nginx.service/worker", "nginx"),
        ("/system.slice/system-shop.slice/shop@cart.service", "shop@cart"),
        (r"/system.slice/my\x2dshop.service", "my-shop"),
        ("/system.slice/cron.service", ""),
        ("/user.slice/user-1000.slice/session-3.scope", ""),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service", ""),
        ("/system.slice", ""),
        ("/", ""),
    ],
)
def test_units(path: str, unit: str) -> None:
    assert cgroups.service_unit(f"0::{path}\n") == unit
    assert cgroups.service_unit(f"9:cpu:/\n1:name=systemd:{path}\n0::/\n") == unit


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert isinstance(cgroups.container_id(text), str)
    assert isinstance(cgroups.service_unit(text), str)
    assert isinstance(cgroups.container_id_from_mounts(text), str)

"""Programs are named as a person would name them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.discovery.naming import executable_matches, program_name
from autotrace.probes import Interpreter, Manifests

MANIFESTS = Manifests.load()


def interpreter(runtime: str) -> Interpreter:
    found = MANIFESTS[runtime].interpreter
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("runtime", "command", "name"),
    [
        ("python", "python app.py", "app"),
        ("python", "python3 -u -X dev /srv/shop/checkout.py --port 80", "checkout"),
        ("python", "python -m shop.web", "shop.web"),
        ("python", "python -um shop.web -c x", "shop.web"),
        ("python", "python -mshop", "shop"),
        ("python", "python -W ignore app.py", "app"),
        ("python", "python -Wignore app.py", "app"),
        ("python", "python -c pass app.py", ""),
        ("python", "python", ""),
        ("python", "python -m", ""),
        ("python", "python -", ""),
        ("python", "python manage.py runserver", "shop"),
        ("python", "python /opt/billing/__main__.py", "billing"),
        ("python", "python /venv/bin/gunicorn -w 4 -b localhost:8000 storefront:app", "storefront"),
        ("python", "python /venv/bin/gunicorn shop.wsgi:create_app()", "shop.wsgi"),
        ("python", "python /venv/bin/gunicorn -b unix:/run/x.sock", "gunicorn"),
        ("python", "python -m uvicorn api.main:app --port 80", "api.main"),
        ("python", "python /venv/bin/flask --app catalogue run", "catalogue"),
        ("python", "python /venv/bin/flask --app=shop/catalogue.py run", "catalogue"),
        ("python", "python /venv/bin/flask run", "from_environment"),
        ("python", "python /venv/bin/celery -A jobs worker", "jobs"),
        ("node", "node server.js", "server"),
        ("node", "node --max-old-space-size=512 -r ./hooks.js /srv/cart/main.mjs", "main"),
        ("node", "node /srv/cart/index.js", "cart"),
        ("node", "node index.js", "shop"),
        ("node", "node -e 1", ""),
        ("java", "java -Xmx1g -cp a.jar:b.jar com.acme.Shop", "com.acme.Shop"),
        ("java", "java -javaagent:x.jar -jar /opt/orders-1.4.jar --port=80", "orders-1.4"),
        ("ruby", "ruby -I lib bin/puma", "puma"),
        ("php", "php -S 0.0.0.0:80 router.php", "router"),
        ("dotnet", "dotnet Shop.Api.dll", "Shop.Api"),
        ("dotnet", "dotnet exec /app/Shop.Api.dll", "Shop.Api"),
    ],
)
def test_command_lines(runtime: str, command: str, name: str) -> None:
    environment = {"FLASK_APP": "from_environment.py"}
    assert program_name(interpreter(runtime), command.split(" "), environment, "/srv/shop") == name


@pytest.mark.parametrize(
    ("runtime", "title", "name"),
    [
        ("python", "gunicorn: worker [storefront:app]", "storefront"),
        ("ruby", "puma 6.4.0 (tcp://0.0.0.0:3000) [orders]", "orders"),
        ("ruby", "puma: cluster worker 0: 7 [orders]", "orders"),
        ("php", "php-fpm: pool www", "php-fpm"),
        ("node", "something else", ""),
    ],
)
def test_process_titles(runtime: str, title: str, name: str) -> None:
    assert program_name(interpreter(runtime), [title], {}, "/") == name


@given(st.sampled_from(["python", "node", "java", "ruby", "php", "dotnet"]), st.lists(st.text()), st.text())
def test_any_command_line_gives_a_text(runtime: str, arguments: list[str], directory: str) -> None:
    assert isinstance(program_name(interpreter(runtime), arguments, {}, directory), str)


def test_executable_patterns() -> None:
    assert executable_matches("nginx", "/usr/sbin/nginx")
    assert executable_matches("python*", "/usr/bin/python3.11")
    assert executable_matches("/opt/*/bin/java", "/opt/jdk/bin/java")
    assert not executable_matches("/opt/*", "/usr/sbin/nginx")
    assert not executable_matches("ngin", "/usr/sbin/nginx")

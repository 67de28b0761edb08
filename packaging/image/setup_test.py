"""The reading of eomt-edge-setup.txt, on any computer: python3 packaging/image/setup_test.py. Applying it takes a machine: see try.sh."""

import base64
import importlib.machinery
import importlib.util
import pathlib
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).parent
PROGRAM = HERE / "files/usr/lib/eomt-edge-image/eomt-edge-setup"
sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader("setup_program", str(PROGRAM))
setup = importlib.util.module_from_spec(importlib.util.spec_from_loader("setup_program", loader))
loader.exec_module(setup)

KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)).decode() + " me@laptop"


def problems_of(text, account=None):
    settings, _, bad, problems = setup.parse(text)
    return problems + [sentence for _, sentence in setup.related(settings, bad, account)]


class Reading(unittest.TestCase):
    def test_the_template_sets_nothing(self):
        text = (HERE / "eomt-edge-setup.txt").read_text(encoding="utf-8")
        self.assertEqual(setup.parse(text), ({}, {}, set(), []))

    def test_the_template_names_every_key(self):
        text = (HERE / "eomt-edge-setup.txt").read_text(encoding="utf-8")
        for key in setup.CHECKS:
            self.assertIn(f"#{key} =", text)

    def test_good_lines(self):
        text = f"hostname = cam-1\r\nuser=robo\r\nssh_key = {KEY}\nssh_key = {KEY}2\nwifi_ssid = a = b\nwifi_password = x y z 1 2 3\nwifi_country=DE\n"
        settings, lines, bad, problems = setup.parse(text)
        self.assertEqual((bad, problems), (set(), []))
        self.assertEqual(settings["wifi_ssid"], "a = b")
        self.assertEqual(len(settings["ssh_key"]), 2)
        self.assertEqual(lines[1], "hostname")
        self.assertEqual(problems_of(text), [])

    def test_bad_values_have_a_sentence_each(self):
        for line in ("hostname = -a", "hostname = Über", "user = Root", "user = $(reboot)", "ssh_key = -----BEGIN OPENSSH PRIVATE KEY-----",
                     f"ssh_key = {KEY[:40]}", f'ssh_key = command="x" {KEY}', "password_hash = hunter2", "wifi_ssid = " + "a" * 33,
                     "wifi_password = short", "wifi_country = Germany", "timezone = ../../etc/shadow", "timezone = Mars/Olympus",
                     "colour = red", "just words", "hostname = a\nhostname = b"):
            with self.subTest(line):
                self.assertEqual(len(setup.parse(line)[3]), 1)

    def test_half_a_setting_is_not_applied(self):
        self.assertIn("Wi-Fi is left as it was, for want of a good wifi_password", problems_of("wifi_ssid = n\nwifi_password = x", "robo"))
        self.assertIn("ssh_key needs a user line", problems_of(f"user = Root\nssh_key = {KEY}", "robo"))
        self.assertEqual(problems_of(f"ssh_key = {KEY}", "robo"), [])

    def test_the_key_of_a_network_is_the_standards(self):
        # IEEE 802.11i, annex H.4.1: the passphrase and SSID of its first test vector
        text = setup.wifi_text({"wifi_ssid": "IEEE", "wifi_password": "password", "wifi_country": "DE"})
        self.assertIn("psk=f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e", text)
        self.assertNotIn("password", text)

    def test_secrets_go_good_or_bad_and_wrong_lines_stay(self):
        text = "user = robo\nwifi_pasword = secret-1\nwifi_password = secret-2\n # password_hash = secret-3\nwifi_password secret-4\nhostname = -\n"
        settings, lines, _, _ = setup.parse(text)
        new = setup.rewritten(text, lines, {"user"})
        self.assertNotIn("secret", new)
        self.assertEqual(new.split("\r\n"), ["#user = robo", "#wifi_pasword =", "#wifi_password =", "#password_hash =", "#wifi_password =", "hostname = -", ""])

    def test_overwriting_leaves_nothing_behind(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"s" * 1000)
            file.flush()
            setup.overwrite(pathlib.Path(file.name), "new\r\n")
            self.assertEqual(pathlib.Path(file.name).read_bytes(), b"new\r\n")


if __name__ == "__main__":
    unittest.main()

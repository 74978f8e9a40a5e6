"""An S3 server that is not ours, attached: Ceph's gateway, with the distribution's packages."""

import unittest

from test.integration.ceph import ACCESS_KEY, SECRET_KEY, gateway, install
from test.integration.real_s3 import MEASURED, SHORT_RUN, SIZES, S3Story


class Ceph(S3Story):
    @classmethod
    def setUpClass(cls) -> None:
        install()

    def test_attached_and_measured(self) -> None:
        url, key = self.enterContext(gateway(self.results / "ceph")), self.results / "key"
        key.write_text(f"{ACCESS_KEY}\nwrong\n")
        key.chmod(0o600)
        attach = f"attach s3 {url} --access-key-file {key}"
        self.assertIn("the secret key is wrong", " ".join(self.type(attach, check=False).split()))
        key.write_text(f"{ACCESS_KEY}\n{SECRET_KEY}\n")
        self.type(attach)
        self.type(f"bench s3 all {SIZES} {SHORT_RUN}", check=False)
        self.check_record(MEASURED)
        self.type(f"bench s3 mixed --size 4KiB {SHORT_RUN} --rate 50", check=False)
        self.check_record(["mixed"])
        self.check_zip([SECRET_KEY.encode()])


if __name__ == "__main__":
    unittest.main()

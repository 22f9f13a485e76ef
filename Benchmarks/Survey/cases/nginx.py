# nginx as one process, in a folder of its own, with a certificate for whatever name.
from server import *

folder = tempfile.mkdtemp()
os.chmod(folder, 0o755)


def certificate():
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=trigger", "-keyout",
                    folder + "/key", "-out", folder + "/cert"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start(http, number):
    temporary = "".join("%s_temp_path %s/%s;\n" % (n, folder, n) for n in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    with open(folder + "/conf", "w") as conf:
        conf.write("daemon off; master_process off; pid %s/pid; error_log %s/log;\nevents { worker_connections 512; }\nhttp { access_log off;\n%s%s}\n"
                   % (folder, folder, temporary, http))
    server = subprocess.Popen([program("nginx"), "-p", folder, "-c", folder + "/conf", "-e", folder + "/log"], stderr=subprocess.DEVNULL)
    listening(number)
    return server

"""A process that has a file system which does not answer any more, with one file of one page.

    silent.py poll FOLDER          the page has the array of a poll(2) that it sleeps in
    silent.py users FOLDER PORT    the file is /etc/passwd; it listens on that port
    silent.py flush FOLDER         the file is opened many times, and sent to NOTIFY_SOCKET; what does not
                                   answer is each close(2) of it
    silent.py lock FOLDER LOG      it writes from the page to LOG, whose lock it has until it is stopped

As root, in a mount namespace of its own. It says on standard error when the page is gone.
"""
import ctypes, os, select, signal, socket, struct, sys, threading

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
mode, folder = sys.argv[1:3]
ready, never = os.pipe()


def checked(answer, what):
    if answer < 0:
        raise OSError(ctypes.get_errno(), what)


def serve(device, gone):
    """The file system: one file of one page, of the protocol of linux/fuse.h only what that needs."""
    page = struct.pack("<ihh", ready, select.POLLIN, 0).ljust(4096, b"\0")
    attributes = lambda node, mode, size: struct.pack(
        "<6Q10I", node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
    file = attributes(2, 0o100644, 4096)
    answers = mode != "lock"
    while True:
        if gone in select.select([device, gone], [], [])[0]:
            if not os.read(gone, 1):
                return
            answers = False
            # FUSE_NOTIFY_INVAL_INODE: the kernel forgets the page.
            os.write(device, struct.pack("<IiQQqq", 40, 2, 0, 2, 0, 0))
            sys.stderr.write("the page is gone\n")
            sys.stderr.flush()
            continue
        request = os.read(device, 1 << 17)
        _, operation, unique, node = struct.unpack("<IIQQ", request[:24])
        reply = lambda body=b"", error=0: os.write(
            device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)
        if operation == 26:  # INIT
            reply(struct.pack("<4I4HII8I", 7, 31, 65536, 0, 10, 10, 0, 0, 65536, 1, *[0] * 8)[:64])
        elif operation == 1:  # LOOKUP
            reply(struct.pack("<4QII", 2, 0, 3600, 3600, 0, 0) + file)
        elif operation == 3:  # GETATTR
            of = attributes(1, 0o040755, 0) if node == 1 else file
            reply(struct.pack("<QII", 3600, 0, 0) + of)
        elif operation == 14:  # OPEN
            reply(struct.pack("<QII", 1, 0, 0))
        elif operation == 15:  # READ
            if answers:
                reply(page)
        elif operation == 18 or operation == 25 and mode != "flush":  # RELEASE, FLUSH
            reply()
        elif operation not in (2, 42, 36, 25):  # FORGET, BATCH_FORGET, INTERRUPT want no reply
            reply(error=-38)


os.makedirs(folder, exist_ok=True)
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
checked(libc.mount(b"silent", folder.encode(), b"fuse", 0, options), "mount")
hears, tell = os.pipe()
server = os.fork()
if server == 0:
    signal.alarm(300)
    os.close(tell)
    serve(device, hears)
    os._exit(0)
os.close(device)
os.close(hears)
def leave(*_):
    # The file system first: this end closes its files, too.
    os.kill(server, signal.SIGKILL)
    os._exit(0)


if mode in ("flush", "lock"):
    signal.signal(signal.SIGTERM, leave)
if mode == "flush":
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.connect(os.environ["NOTIFY_SOCKET"])
    for text, count in (b"FDSTORE=1\nFDNAME=file", 3), (b"STATUS=many", 100):
        files = [os.open(folder + "/file", os.O_RDONLY) for _ in range(count)]
        socket.send_fds(notify, [text], files)
    # Each is to be heard, whatever becomes of the files.
    while True:
        notify.send(b"STATUS=beats")
        select.select([], [], [], 0.1)
file = os.open(folder + "/file", os.O_RDONLY)
PROT_READ, MAP_SHARED = 1, 1
if mode == "lock":
    page = libc.mmap(None, 4096, PROT_READ, MAP_SHARED, file, 0)
    while not os.path.exists(sys.argv[3]) or not os.path.getsize(sys.argv[3]):
        select.select([], [], [], 0.01)
    log = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND)
    writes = threading.Thread(target=lambda: libc.write(log, ctypes.c_void_p(page), 4096), daemon=True)
    writes.start()
    call = f"/proc/self/task/{writes.native_id}/syscall"
    while f" {page:#x} " not in open(call).read():
        pass
    sys.stderr.write("the file is locked\n")
    sys.stderr.flush()
    signal.pause()
if mode == "poll":
    page = libc.mmap(None, 4096, PROT_READ, MAP_SHARED, file, 0)
    sleeper = threading.Thread(target=lambda: libc.poll(ctypes.c_void_p(page), 1, -1), daemon=True)
    sleeper.start()
    call = f"/proc/self/task/{sleeper.native_id}/syscall"
    while f" {page:#x} " not in open(call).read():
        pass
else:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[3])))
    # MS_BIND
    checked(libc.mount(f"{folder}/file".encode(), b"/etc/passwd", None, 4096, None), "mount")
os.write(tell, b"!")
signal.pause()

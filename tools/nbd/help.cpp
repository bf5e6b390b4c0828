#include "tools/nbd/help.hpp"

#include <fmt/format.h>

namespace whistler::tools::nbd {

std::string help_text(const std::string& program) {
  return fmt::format(R"(Usage: {0} [OPTIONS] FILE
  or:  {0} -L [OPTIONS]
Serves disk images over NBD, the network block device protocol

  -h, --help                this text
  -V, --version             the version

Connection:
  -p, --port=PORT           TCP port (default `10809')
  -b, --bind=ADDRESS        address to bind to (default `0.0.0.0')
  -k, --socket=PATH         unix socket in place of TCP; an absolute path
  -e, --shared=NUM          how many clients at a time, 0 for any number (default `1')
  -t, --persistent          go on after the last client has left
  -v, --verbose             say more on standard error
  -x, --export-name=NAME    name of the export (default is empty)
  -D, --description=TEXT    its description

What of the image is shown:
  -o, --offset=OFFSET       begin at this byte of the image
  -A, --allocation-depth    tell in which layer of a chain data is
  -B, --bitmap=NAME         show a persistent dirty bitmap

General:
  -L, --list                list the exports of another server
      --export=NAME=FILE[,format=FMT][,readonly=on][,description=TEXT]
                            serve FILE as NAME, beside FILE of the command line
                            or without one; may be given more than once
      --object TYPE,id=ID,...
                            define a secret, tls-creds-x509, tls-creds-psk or authz-simple
      --tls-creds=ID        use the TLS credentials of that object
      --tls-authz=ID        let in only whom that object names
      --tls-hostname=NAME   name that the certificate of the server must bear (-L)
      --fork                serve in the background, and end when that is ready
      --pid-file=PATH       write the server's process number there

Kernel client:
  -c, --connect=DEV         refused: use nbd-client with a server's socket
  -d, --disconnect          refused, like -c

Image:
  -f, --format=FORMAT       image format (raw, qcow2, ...)
  -r, --read-only           serve it read-only
  -s, --snapshot            keep writes in a temporary overlay, gone at the end
  -l, --load-snapshot=SNAPSHOT
                            serve an internal snapshot, read-only:
                            'snapshot.id=[ID],snapshot.name=[NAME]' or '[ID_OR_NAME]'
  -n, --nocache             the same as --cache=none
      --cache=MODE          none, writeback (default), writethrough, directsync, unsafe
      --aio=MODE            native, io_uring or threads: accepted; io_uring, or threads if the host refuses that
      --discard=MODE        ignore (default) or unmap
      --detect-zeroes=MODE  off (default), on or unmap
      --image-opts          FILE is a list of image options
)",
                     program);
}

std::string version_text(const std::string& program) {
  return fmt::format("{} 7.2.22 (Whistler 0.1.0)\n", program);
}

}  // namespace whistler::tools::nbd

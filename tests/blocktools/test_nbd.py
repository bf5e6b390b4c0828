"""whistler nbd against other people's clients and servers: nbdinfo, nbdcopy, fio, nbdkit, qemu-img, qemu-nbd."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

WHISTLER = os.path.abspath(os.environ.get('WHISTLER', 'whistler'))
MIB = 1024 * 1024


def have(program):
    return shutil.which(program) is not None


def run(*words, check=True, **more):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
                          check=False, **more)
    if check and done.returncode != 0:
        raise AssertionError(f'{" ".join(words)}: status {done.returncode}\n{done.stdout}')
    return done


class NbdTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='whistler-nbd-')
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.socket = self.path('s')

    def path(self, name):
        return os.path.join(self.folder, name)

    def url(self, export=''):
        return f'nbd+unix:///{export}?socket={self.socket}'

    def raw(self, name='disk.raw', size=8 * MIB, fill=None):
        path = self.path(name)
        with open(path, 'wb') as file:
            file.truncate(size)
            if fill:
                file.write(fill)
        return path

    def link(self, name):
        """The program under the name of QEMU's tool."""
        path = self.path(name)
        if not os.path.exists(path):
            os.symlink(WHISTLER, path)
        return path

    @contextlib.contextmanager
    def serving(self, *words, program=None, stop=True):
        """A server in the foreground, once its socket answers."""
        command = [*(program or [WHISTLER, 'nbd']), '-t', '-k', self.socket, *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
            try:
                for _ in range(200):
                    if os.path.exists(self.socket) or server.poll() is not None:
                        break
                    time.sleep(0.02)
                self.assertIsNone(server.poll(), server.poll() is not None and server.stdout.read())
                yield server
                if stop:
                    server.send_signal(signal.SIGTERM)
                    self.assertEqual(server.wait(20), 0)
            finally:
                if server.poll() is None:
                    server.kill()

    def connect(self):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(20)
        peer.connect(self.socket)
        return peer


class Server(NbdTest):
    def test_listing_is_that_of_qemu_nbd(self):
        disk = self.path('disk.qcow2')
        run('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '10M')
        for options in ([], ['-r'], ['-e', '5'], ['-r', '-e', '0', '-A'], ['-x', 'name', '-D', 'a text'], ['-o', '512']):
            with self.subTest(options=options):
                words = ['-f', 'qcow2', *options, disk]
                with self.serving(*words):
                    ours = run('qemu-nbd', '-L', '-k', self.socket).stdout
                    own = run(WHISTLER, 'nbd', '-L', '-k', self.socket).stdout
                with self.serving(*words, program=['qemu-nbd']):
                    theirs = run('qemu-nbd', '-L', '-k', self.socket).stdout
                    theirs_by_us = run(WHISTLER, 'nbd', '-L', '-k', self.socket).stdout
                self.assertEqual(ours, theirs)
                self.assertEqual(own, theirs)
                self.assertEqual(theirs_by_us, theirs)

    def test_mistakes_are_answered_as_qemu_nbd_answers(self):
        self.raw('a.raw')
        run('qemu-img', 'create', '-q', '-f', 'qcow2', self.path('a.qcow2'), '1M')
        ours = self.link('qemu-nbd')
        for words in ([], ['a', 'b'], ['nosuch'], ['-f', 'foo', 'a.raw'], ['-p', 'abc', '-f', 'raw', 'a.raw'],
                      ['-k', 'relative', 'a.raw'], ['--cache=foo', 'a.raw'], ['--aio=foo', 'a.raw'],
                      ['--discard=foo', 'a.raw'], ['--detect-zeroes=foo', 'a.raw'],
                      ['--detect-zeroes=unmap', 'a.raw'], ['-o', '1x', 'a.raw'], ['-o', '-1', 'a.raw'],
                      ['-e', '-1', 'a.raw'], ['-e', 'x', 'a.raw'], ['--zzz'], ['-L', 'a.raw'], ['-L', '-o', '1'],
                      ['-L', '-x', 'foo'], ['-L', '--fork'], ['-n', '--cache=none', 'a.raw'],
                      ['--image-opts', '-f', 'raw', 'a.raw'], ['-l', 'x', 'a.qcow2'], ['-f', 'raw', '-l', 'x', 'a.raw'],
                      ['--tls-creds', 'x', 'a.raw'], ['--tls-authz', 'x', 'a.raw'], ['--tls-hostname', 'x', 'a.raw'],
                      ['-c', '/dev/nosuch', '-f', 'raw', 'a.raw'], ['-d', '/dev/nosuch'], ['-L', '-k', '/nosuch'],
                      ['-B', 'nosuch', '-f', 'qcow2', 'a.qcow2'], ['--object', 'foo', 'a.raw'],
                      ['--object', 'secret,id=x', 'a.raw'], ['-k', '/nosuch/s', '-f', 'raw', 'a.raw'],
                      ['--fork', '-k', '/nosuch/s', '-f', 'raw', 'a.raw'],
                      ['--pid-file=/nosuch/p', '-k', self.socket, '-f', 'raw', 'a.raw'], ['-t', '-p']):
            with self.subTest(words=words):
                theirs = run('qemu-nbd', *words, check=False, cwd=self.folder)
                answer = run(ours, *words, check=False, cwd=self.folder)
                self.assertEqual(answer.stdout.replace(ours, 'qemu-nbd'), theirs.stdout)
                self.assertEqual(answer.returncode, theirs.returncode)

    @unittest.skipUnless(have('nbdinfo'), 'libnbd-bin is not installed')
    def test_nbdinfo_sees_what_was_asked_for(self):
        disk = self.raw(fill=b'x' * 65536)
        with self.serving('-f', 'raw', '-x', 'one', '-D', 'about it', '-r', '-e', '3', disk):
            info = json.loads(run('nbdinfo', '--json', self.url('one')).stdout)['exports'][0]
            extents = json.loads(run('nbdinfo', '--json', '--map', self.url('one')).stdout)
        self.assertEqual(info['export-size'], 8 * MIB)
        self.assertEqual(info['description'], 'about it')
        self.assertTrue(info['is_read_only'])
        self.assertTrue(info['can_multi_conn'])
        self.assertEqual([(each['offset'], each['length'], each['type']) for each in extents],
                         [(0, 65536, 0), (65536, 8 * MIB - 65536, 3)])

    @unittest.skipUnless(have('nbdcopy'), 'libnbd-bin is not installed')
    def test_nbdcopy_over_several_connections_copies_every_byte(self):
        content = random.Random(1).randbytes(3 * MIB) + bytes(MIB) + random.Random(2).randbytes(MIB)
        source = self.raw(size=8 * MIB, fill=content)
        with self.serving('-f', 'raw', '-e', '0', source):
            run('nbdcopy', '--connections=4', self.url(), self.path('copy.raw'))
        with open(self.path('copy.raw'), 'rb') as copy:
            self.assertEqual(copy.read(), content + bytes(3 * MIB))
        target = self.path('target.qcow2')
        run('qemu-img', 'create', '-q', '-f', 'qcow2', target, '8M')
        with self.serving('-f', 'qcow2', '-e', '0', '--discard=unmap', target):
            run('nbdcopy', '--connections=4', '--flush', source, self.url())
        run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', source, target)
        run('qemu-img', 'check', '-q', target)

    def test_qemu_io_and_qemu_img_work_over_it(self):
        disk = self.path('disk.qcow2')
        run('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '64M')
        with self.serving('-f', 'qcow2', '--discard=unmap', '-e', '0', disk):
            out = run('qemu-io', '-f', 'raw', '-c', 'write -P 7 1M 1M', '-c', 'write -z 1500k 64k', '-c', 'write -f -P 8 4M 4k',
                      '-c', 'discard 4M 64k', '-c', 'flush', '-c', 'read -P 7 1M 400k', '-c', 'read -P 0 1500k 64k',
                      self.url()).stdout
            self.assertNotIn('failed', out)
            self.assertNotIn('error', out)
            run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', self.url(), self.path('copy.qcow2'))
        run('qemu-img', 'check', '-q', disk)
        run('qemu-img', 'compare', disk, self.path('copy.qcow2'))

    def test_several_exports_each_with_its_own_settings(self):
        one = self.raw('one.raw', MIB, b'1' * 512)
        two = self.raw('two,2.raw', 2 * MIB, b'2' * 512)
        with self.serving('-e', '0', f'--export=one={one},format=raw,readonly=on,description=first',
                          f'--export=two={two.replace(",", ",,")},format=raw'):
            listing = run('qemu-nbd', '-L', '-k', self.socket).stdout
            self.assertIn('exports available: 2', listing)
            self.assertIn("export: 'one'\n  description: first", listing)
            out = run('qemu-io', '-r', '-f', 'raw', '-c', 'read -P 0x31 0 512', self.url('one')).stdout
            self.assertNotIn('fail', out)
            out = run('qemu-io', '-f', 'raw', '-c', 'read -P 0x32 0 512', '-c', 'write -P 3 0 512', self.url('two')).stdout
            self.assertNotIn('fail', out)
            refused = run('qemu-io', '-f', 'raw', '-c', 'write 0 512', self.url('one'), check=False)
            self.assertNotEqual(refused.returncode, 0)

    def test_fork_reports_readiness_and_writes_the_process_number(self):
        disk = self.raw()
        pid_file = self.path('pid')
        done = run(WHISTLER, 'nbd', '-t', '--fork', '-k', self.socket, '--pid-file', pid_file, '-f', 'raw', disk)
        self.assertEqual(done.stdout, '')
        with open(pid_file, encoding='ascii') as file:
            pid = int(file.read())
        try:
            run('qemu-nbd', '-L', '-k', self.socket)
        finally:
            os.kill(pid, signal.SIGTERM)
        for _ in range(200):
            if not os.path.exists(self.socket):
                break
            time.sleep(0.02)
        self.assertFalse(os.path.exists(self.socket))

    def test_it_ends_with_its_last_client_unless_told_to_stay(self):
        disk = self.raw()
        with subprocess.Popen([WHISTLER, 'nbd', '-k', self.socket, '-f', 'raw', disk]) as server:
            while not os.path.exists(self.socket):
                time.sleep(0.02)
            run('qemu-nbd', '-L', '-k', self.socket)  # who only lists was no client
            self.assertIsNone(server.poll())
            run('qemu-io', '-f', 'raw', '-c', 'write -P 5 0 4k', self.url())
            self.assertEqual(server.wait(10), 0)
        with open(disk, 'rb') as file:
            self.assertEqual(file.read(4096), b'\5' * 4096)

    def test_snapshots_are_served_and_temporary_writes_are_lost(self):
        disk = self.path('disk.qcow2')
        run('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '1M')
        run('qemu-io', '-c', 'write -P 1 0 64k', disk)
        run('qemu-img', 'snapshot', '-c', 'before', disk)
        run('qemu-io', '-c', 'write -P 2 0 64k', disk)
        for name in ('before', '1', 'snapshot.name=before', 'snapshot.id=1'):
            with self.serving('-f', 'qcow2', '-l', name, disk):
                out = run('qemu-io', '-r', '-f', 'raw', '-c', 'read -P 1 0 64k', self.url()).stdout
                self.assertNotIn('fail', out)
        with self.serving('-f', 'qcow2', '-s', disk):
            out = run('qemu-io', '-f', 'raw', '-c', 'read -P 2 0 64k', '-c', 'write -P 3 0 64k', '-c', 'read -P 3 0 64k',
                      self.url()).stdout
            self.assertNotIn('fail', out)
        self.assertNotIn('fail', run('qemu-io', '-c', 'read -P 2 0 64k', disk).stdout)

    @unittest.skipUnless(have('nbdinfo'), 'needs nbdinfo')
    def test_an_enabled_bitmap_of_a_read_only_image_is_served(self):
        run('qemu-img', 'create', '-q', '-f', 'qcow2', self.path('i.qcow2'), '1M')
        run('qemu-img', 'bitmap', '--add', '-f', 'qcow2', self.path('i.qcow2'), 'b0')
        run('qemu-io', '-f', 'qcow2', '-c', 'write 128k 64k', self.path('i.qcow2'))
        with self.serving('-r', '-f', 'qcow2', '-B', 'b0', self.path('i.qcow2')):
            shown = run('nbdinfo', '--map=qemu:dirty-bitmap:b0', self.url()).stdout
        lines = [line.split()[:3] for line in shown.splitlines()]
        self.assertEqual(lines, [['0', '131072', '0'], ['131072', '65536', '1'], ['196608', '851968', '0']])

    @unittest.skipUnless(have('fio'), 'fio is not installed')
    def test_fio_verifies_what_it_wrote(self):
        disk = self.path('disk.qcow2')
        run('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '32M')
        with self.serving('-f', 'qcow2', '-e', '0', disk):
            done = run('fio', '--name=x', '--ioengine=nbd', f'--uri={self.url()}', '--rw=randwrite', '--bs=4k-64k',
                       '--size=16m', '--iodepth=32', '--verify=crc32c', '--do_verify=1', check=False)
        if 'engine nbd not loadable' in done.stdout or 'engine' in done.stdout and done.returncode == 1:
            self.skipTest('this fio has no nbd engine')
        self.assertEqual(done.returncode, 0, done.stdout)
        run('qemu-img', 'check', '-q', disk)

    def test_a_client_killed_in_mid_load_harms_nobody(self):
        disk = self.path('disk.qcow2')
        run('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '256M')
        with self.serving('-f', 'qcow2', '-e', '0', disk):
            for _ in range(3):
                with subprocess.Popen(['qemu-img', 'bench', '-w', '-f', 'raw', '-c', '1000000', '-d', '64',
                                       self.url()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
                    time.sleep(0.3)
                    load.kill()
            out = run('qemu-io', '-f', 'raw', '-c', 'write -P 9 0 64k', '-c', 'read -P 9 0 64k', self.url()).stdout
            self.assertNotIn('fail', out)
        run('qemu-img', 'check', '-q', disk)

    def test_a_server_killed_in_mid_load_leaves_a_sound_image(self):
        disk = self.path('disk.qcow2')
        run('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '256M')
        with self.serving('-f', 'qcow2', '-e', '0', disk, stop=False) as server:
            with subprocess.Popen(['qemu-img', 'bench', '-w', '-f', 'raw', '-c', '1000000', '-d', '64',
                                   '--flush-interval=64', self.url()], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL) as load:
                time.sleep(0.5)
                server.kill()
                self.assertNotEqual(load.wait(20), 0)
        self.assertIn(run('qemu-img', 'check', disk, check=False).returncode, (0, 3))  # 3: only leaks

    def test_clients_that_say_nothing_or_nonsense_disturb_no_other(self):
        disk = self.raw()
        with self.serving('-f', 'raw', '-e', '0', disk):
            silent = self.connect()
            for nonsense in (b'', b'\0' * 64, os.urandom(4096),
                             struct.pack('>IQII', 3, 0x49484156454f5054, 7, 0xffffffff),
                             struct.pack('>IQII', 1, 0x49484156454f5054, 1, 5000)):
                with self.connect() as peer:
                    peer.sendall(nonsense)
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(65536):
                        pass
            run('qemu-nbd', '-L', '-k', self.socket)
            silent.close()

    @unittest.skipUnless(have('nbdinfo'), 'libnbd-bin is not installed')
    def test_a_socket_handed_over_is_served(self):
        disk = self.raw()
        out = run('nbdinfo', '--size', '--', '[', WHISTLER, 'nbd', '-f', 'raw', disk, ']').stdout
        self.assertEqual(out.strip(), str(8 * MIB))


class Client(NbdTest):
    """Our img and io on other people's servers."""

    def img(self, *words, **more):
        return run(WHISTLER, 'img', *words, **more)

    def test_convert_from_and_to_a_server(self):
        content = random.Random(3).randbytes(2 * MIB)
        source = self.raw(fill=content)
        with self.serving('-f', 'raw', '-e', '0', source, program=['qemu-nbd']):
            self.img('convert', '-f', 'raw', '-O', 'qcow2', self.url(), self.path('copy.qcow2'))
        run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', source, self.path('copy.qcow2'))
        target = self.raw('target.raw')
        with self.serving('-f', 'raw', '-e', '0', target, program=['qemu-nbd']):
            self.img('convert', '-n', '-f', 'qcow2', '-O', 'raw', self.path('copy.qcow2'), self.url())
        run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, target)

    def test_images_are_made_on_an_export_that_is_large_enough(self):
        stale = self.raw('export.raw', 8 * MIB, b'\xa5' * 8 * MIB)
        source = self.raw('source.raw', 64 * MIB, random.Random(7).randbytes(MIB))
        with self.serving('-f', 'raw', stale):
            self.img('convert', '-f', 'raw', '-O', 'qcow2', '-c', source, self.url())
            self.assertIn('identical', self.img('compare', '-f', 'raw', '-F', 'qcow2', source, self.url()).stdout)
            for program in ([WHISTLER, 'img'], ['qemu-img']):
                self.assertIn('No errors were found', run(*program, 'check', '-f', 'qcow2', self.url()).stdout)
            refused = self.img('create', '-f', 'raw', self.url(), '9M', check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn('does not fit', refused.stdout)
            refused = self.img('create', '-f', 'vdi', self.url(), '1M', check=False)
            self.assertIn("Protocol driver 'nbd' does not support image creation", refused.stdout)
            full = self.raw('full.raw', 8 * MIB, b'x' * 8 * MIB)
            refused = self.img('convert', '-f', 'raw', '-O', 'qcow2', full, self.url(), check=False)
            self.assertEqual(refused.returncode, 1, 'the tables do not fit beside the data')
            self.img('create', '-f', 'raw', self.url(), '8M')
            self.assertIn('file format: raw', self.img('info', self.url()).stdout)

    def test_a_backing_file_may_be_on_a_server(self):
        base = self.raw(fill=b'b' * MIB)
        top = self.path('top.qcow2')
        with self.serving('-f', 'raw', '-r', '-e', '0', base, program=['qemu-nbd']):
            run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', self.url(), top)
            self.img('convert', '-f', 'qcow2', '-O', 'raw', top, self.path('flat.raw'))
        run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', base, self.path('flat.raw'))

    @unittest.skipUnless(have('nbdkit'), 'nbdkit is not installed')
    def test_nbdkit_with_big_blocks_and_odd_sizes(self):
        for words in (['memory', 'size=1000'], ['memory', '1M', '--filter=blocksize-policy', 'blocksize-minimum=4096',
                                                'blocksize-error-policy=error'],
                      ['--no-sr', 'memory', '1M'], ['pattern', '1M', '--filter=cow']):
            with self.subTest(words=words):
                command = f'{WHISTLER} img convert -f raw -O raw "$uri" {self.path("out.raw")}'
                run('nbdkit', '-U', '-', *words, '--run', command)
                self.assertGreaterEqual(os.path.getsize(self.path('out.raw')), 1000)

    def test_a_server_killed_in_mid_load_is_an_error_soon(self):
        disk = self.raw(size=256 * MIB)
        with self.serving('-f', 'raw', '-e', '0', disk, program=['qemu-nbd'], stop=False) as server:
            with subprocess.Popen([WHISTLER, 'img', 'bench', '-w', '-f', 'raw', '-c', '10000000', self.url()],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as load:
                time.sleep(0.5)
                self.assertIsNone(load.poll())
                server.kill()
                out = load.communicate(timeout=20)[0]
                self.assertNotEqual(load.returncode, 0, out)


@unittest.skipUnless(have('certtool') and have('psktool'), 'gnutls-bin is not installed')
class Tls(NbdTest):
    def setUp(self):
        super().setUp()
        run('psktool', '--pskfile', self.path('keys.psk'), '--username', 'qemu')
        self.psk = f'tls-creds-psk,id=tls0,dir={self.folder},endpoint='

    def certificates(self):
        def template(name, text):
            with open(self.path(name), 'w', encoding='ascii') as file:
                file.write(text)
            return self.path(name)

        run('certtool', '--generate-privkey', '--outfile', self.path('key.pem'))
        run('certtool', '--generate-self-signed', '--load-privkey', self.path('key.pem'), '--outfile',
            self.path('ca-cert.pem'), '--template', template('ca.info', 'cn = authority\nca\ncert_signing_key\n'))
        for side, text in (('server', 'cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\n'
                                      'tls_www_server\nencryption_key\nsigning_key\n'),
                           ('client', 'cn = someone\ntls_www_client\nencryption_key\nsigning_key\n')):
            run('certtool', '--generate-certificate', '--load-ca-privkey', self.path('key.pem'),
                '--load-ca-certificate', self.path('ca-cert.pem'), '--load-privkey', self.path('key.pem'),
                '--template', template(f'{side}.info', text), '--outfile', self.path(f'{side}-cert.pem'))
            shutil.copy(self.path('key.pem'), self.path(f'{side}-key.pem'))

    def listing(self, program, credentials, *words):
        return run(*program, '-L', '-k', self.socket, '--object', credentials, '--tls-creds', 'tls0', *words,
                   check=False)

    def test_psk_both_ways(self):
        disk = self.raw(fill=b's' * 65536)
        ours, theirs = [WHISTLER, 'nbd'], ['qemu-nbd']
        for server, client in ((ours, theirs), (theirs, ours), (ours, ours)):
            with self.subTest(server=server, client=client):
                with self.serving('-f', 'raw', '-e', '0', '--object', self.psk + 'server', '--tls-creds', 'tls0', disk,
                                  program=server):
                    done = self.listing(client, self.psk + 'client')
                    self.assertEqual(done.returncode, 0, done.stdout)
                    self.assertIn('exports available: 1', done.stdout)
                    plain = run(*client, '-L', '-k', self.socket, check=False)
                    self.assertEqual(plain.returncode, 1)
                    self.assertIn('TLS negotiation required before option 3 (list)', plain.stdout)

    def test_data_goes_through_tls(self):
        disk = self.raw(size=16 * MIB)
        options = (f'driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={self.socket},'
                   'file.tls-creds=tls0')
        with self.serving('-f', 'raw', '-e', '0', '--object', self.psk + 'server', '--tls-creds', 'tls0', disk):
            out = run('qemu-io', '--object', self.psk + 'client', '--image-opts', '-c', 'write -P 6 1M 8M', '-c',
                      'read -P 6 1M 8M', '-c', 'aio_read -P 6 2M 4M', '-c', 'aio_read -P 6 1M 4M', '-c', 'aio_flush',
                      options).stdout
            self.assertNotIn('fail', out)

    def test_certificates_are_checked_on_both_sides(self):
        self.certificates()
        disk = self.raw()
        server = f'tls-creds-x509,id=tls0,dir={self.folder},endpoint=server,verify-peer=on'
        client = f'tls-creds-x509,id=tls0,dir={self.folder},endpoint=client'
        with self.serving('-f', 'raw', '-e', '0', '--object', server, '--tls-creds', 'tls0', disk):
            for program in ([WHISTLER, 'nbd'], ['qemu-nbd']):
                done = self.listing(program, client, '--tls-hostname', 'localhost')
                self.assertEqual(done.returncode, 0, done.stdout)
                done = self.listing(program, client)
                self.assertIn('No hostname for certificate validation', done.stdout)
                done = self.listing(program, client, '--tls-hostname', 'elsewhere')
                self.assertIn('Certificate does not match the hostname elsewhere', done.stdout)

    def test_a_wrong_key_is_refused(self):
        disk = self.raw()
        os.mkdir(self.path('other'))
        run('psktool', '--pskfile', self.path('other/keys.psk'), '--username', 'qemu')
        with self.serving('-f', 'raw', '--object', self.psk + 'server', '--tls-creds', 'tls0', disk):
            done = self.listing([WHISTLER, 'nbd'], f'tls-creds-psk,id=tls0,dir={self.path("other")},endpoint=client')
            self.assertEqual(done.returncode, 1)
            self.assertIn('TLS handshake failed', done.stdout)


if __name__ == '__main__':
    sys.exit(unittest.main(verbosity=1))

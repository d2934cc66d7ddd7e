//go:build unix

package postgres

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// downloadVersions are what can be downloaded, by major version.
var downloadVersions = map[int]embeddedpostgres.PostgresVersion{
	14: embeddedpostgres.V14, 15: embeddedpostgres.V15, 16: embeddedpostgres.V16,
	17: embeddedpostgres.V17, 18: embeddedpostgres.V18,
}

// newestDownload is the version fetched where no data asks for another.
const newestDownload = 17

func downloadedBinDir(dir string) string { return filepath.Join(dir, "server", "bin") }

// downloadServer fetches a server into dir. The library can only fetch and
// start in one step; it is let fetch, and its start is made to fail: as root
// initdb refuses anyway, and as a user a server it started would be neither
// ours to supervise nor on a unix socket. So it is handed a data path that
// cannot become a directory, and what counts is whether the programs are there.
func downloadServer(ctx context.Context, repository, dir string, needed int) (string, error) {
	if needed == 0 {
		needed = newestDownload
	}
	version, ok := downloadVersions[needed]
	if !ok {
		return "", fmt.Errorf("version %d: %w", needed, errUnsupportedVersion)
	}
	server := filepath.Join(dir, "server")
	blocked := filepath.Join(dir, "server.lock")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", err
	}
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		return "", err
	}
	defer os.Remove(blocked)
	port, err := freePort()
	if err != nil {
		return "", err
	}
	config := embeddedpostgres.DefaultConfig().
		Version(version).Port(port).Logger(io.Discard).StartTimeout(10 * time.Second).
		BinariesPath(server).
		CachePath(filepath.Join(dir, "server-cache")).
		RuntimePath(filepath.Join(dir, "server-tmp")).
		DataPath(filepath.Join(blocked, "data"))
	if repository != "" {
		config = config.BinaryRepositoryURL(repository)
	}
	result := make(chan error, 1)
	go func() { result <- embeddedpostgres.NewDatabase(config).Start() }()
	select {
	case err = <-result:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer os.RemoveAll(filepath.Join(dir, "server-tmp"))
	if serverVersion(downloadedBinDir(dir)) != needed {
		return "", err
	}
	_ = os.RemoveAll(filepath.Join(dir, "server-cache"))
	return downloadedBinDir(dir), nil
}

// freePort is only for the library's check that its port is free.
func freePort() (uint32, error) {
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return uint32(listener.Addr().(*net.TCPAddr).Port), nil
}

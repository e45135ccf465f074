package sdgrpc_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"example.com/sdgrpc"
)

// realServer is an `sdgrpc serve` with the embedded model. `stop` sends it SIGTERM; it is nil where
// somebody else started it.
type realServer struct {
	target string
	stop   func()
}

// startServer starts one with the table's arguments, or takes the one that SDGRPC_CONTRACT_SERVER names.
func startServer(t *testing.T, arguments []string) realServer {
	t.Helper()
	if target := os.Getenv("SDGRPC_CONTRACT_SERVER"); target != "" {
		return realServer{target: target}
	}
	python := os.Getenv("SDGRPC_PYTHON")
	if python == "" {
		python = filepath.Join(root(t), ".venv/bin/python")
	}
	if _, err := exec.LookPath(python); err != nil {
		skip(t, "SDGRPC_PYTHON names no Python with sdgrpc, and there is no "+python)
	}
	command := exec.Command(python,
		append([]string{"-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0"}, arguments...)...)
	command.Dir = root(t)
	command.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "SDGRPC_")
	})
	var log bytes.Buffer
	command.Stderr = &log
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Signal(syscall.SIGTERM) // it may have ended already
		if err := command.Wait(); err != nil {
			t.Errorf("the server ended by %v; its log:\n%s", err, log.String())
		}
	})
	line, _ := bufio.NewReader(output).ReadString('\n')
	target, found := strings.CutPrefix(line, "listening on ")
	if !found {
		t.Fatal("the server ended before it was ready; its log follows")
	}
	return realServer{
		target: strings.TrimSpace(target),
		stop:   func() { command.Process.Signal(syscall.SIGTERM) },
	}
}

func connect(t *testing.T, target string, changes ...sdgrpc.Option) *sdgrpc.Client {
	t.Helper()
	client, err := sdgrpc.New(target, changes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

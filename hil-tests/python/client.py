"""A first client of a factory station, made from its .proto alone. Makes a work order of one unit a nest, and closes
it; prints a JSON object in the end, and ends with 0 if it is closed. Does not know how boards get into nests: they lie
there. May be started again with the same arguments at any time, and goes on.

  python -m grpc_tools.protoc -I proto --python_out STUBS --grpc_python_out STUBS factory/station/v1/station.proto
  PYTHONPATH=STUBS python client.py --station ADDRESS:PORT ...
"""

import argparse, hashlib, json, ssl, sys, time, uuid
from pathlib import Path

import grpc
from factory.station.v1 import station_pb2 as api
from factory.station.v1.station_pb2_grpc import StationStub
from google.protobuf.json_format import MessageToDict

# A command that got no answer is sent again as it was, with its command id: nothing is done twice.
RETRY = {"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "5s", "backoffMultiplier": 2}
COMMAND = {"name": [{}], "timeout": "60s", "retryPolicy": RETRY | {"retryableStatusCodes": ["UNAVAILABLE"]}}
STREAM = {"name": [{"service": "factory.station.v1.Station", "method": "WatchEvents"}]}
METHODS = [method | {"waitForReady": True} for method in (COMMAND, STREAM)]
# A station that is gone without a word is noticed after half a minute, and found within two seconds when it is back.
OPTIONS = {"grpc.service_config": json.dumps({"methodConfig": METHODS}), "grpc.max_reconnect_backoff_ms": 2_000,
           "grpc.keepalive_time_ms": 20_000, "grpc.keepalive_timeout_ms": 10_000}


def connect(arguments):
    files = [Path(file).read_bytes() for file in (arguments.ca, arguments.key, arguments.certificate) if file]
    if not files:
        return grpc.insecure_channel(arguments.station, list(OPTIONS.items()))
    credentials = grpc.ssl_channel_credentials(*files)
    return grpc.secure_channel(arguments.station, credentials, list(OPTIONS.items()))


class Client:
    def __init__(self, station, order, nests):
        self.station, self.order, self.nests = station, order, nests
        self.units, self.lost = {}, 0

    def command(self, *what):
        """The same for the same command, also when this program is started again."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join((self.order, *what))))

    def open(self, arguments):
        ca = hashlib.sha256(ssl.PEM_cert_to_DER_cert(Path(arguments.device_ca).read_text())).digest()
        self.station.AttestRegistration(api.AttestRegistrationRequest(
            command_id=self.command("attest"), ca_fingerprint=ca, account_id=arguments.account, registered=True,
            statement="as this client was told"))
        self.station.OpenWorkOrder(api.OpenWorkOrderRequest(
            command_id=self.command("open"), work_order=self.order, recipe=arguments.recipe, quantity=len(self.nests),
            signed_order=Path(arguments.signed_order).read_text().strip()))

    def events(self):
        """What happens from now on, beginning with the state of each nest; all of it, though the station restarts."""
        watch = api.WatchEventsRequest(kinds=[api.EVENT_KIND_RUN, api.EVENT_KIND_NEST])
        while True:
            try:
                for event in self.station.WatchEvents(watch):
                    watch.after_sequence = event.last_sequence
                    yield event
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
            self.lost += 1
            time.sleep(0.2)  # One that shuts down says so at once.

    def make(self):
        """Starts each unit once its nest takes it, and waits until all have ended."""
        waiting = dict(self.nests)
        for event in self.events():
            free = event.HasField("nest_state") and not (event.nest_state.busy or event.nest_state.parked)
            if free and event.nest in waiting:
                self.start(event.nest, waiting.pop(event.nest))
            elif event.HasField("run_closed") and self.nests.get(event.nest) == event.serial:
                self.ended(event.serial, event.run_closed)
            if len(self.units) == len(self.nests):
                return

    def start(self, nest, serial):
        try:
            run = self.station.StartUnit(api.StartUnitRequest(
                command_id=self.command("start", serial), work_order=self.order, serial=serial, nest=nest)).run_id
        except grpc.RpcError as refusal:
            self.units[serial] = f"{refusal.code().name}: {refusal.details()}"
        else:  # It has ended already where an earlier start of this program began it.
            self.ended(serial, self.station.GetUnit(api.GetUnitRequest(run_id=run)).unit)

    def ended(self, serial, result):
        if result.outcome == api.OUTCOME_PASS:
            self.station.DisposeUnit(api.DisposeUnitRequest(
                command_id=self.command("ship", serial), serial=serial, disposition=api.DISPOSITION_SHIPPED))
        if result.outcome != api.OUTCOME_UNSPECIFIED:
            self.units[serial] = api.Outcome.Name(result.outcome).removeprefix("OUTCOME_")

    def close(self):
        """The books; they are closed unless a unit is not accounted for, which is left to people."""
        books = self.station.ReconcileWorkOrder(api.ReconcileWorkOrderRequest(work_order=self.order))
        if books.unsettled_units == 0:
            self.station.CloseWorkOrder(api.CloseWorkOrderRequest(
                command_id=self.command("close"), work_order=self.order, reason="all units are accounted for"))
        sides = {name: MessageToDict(side, preserving_proto_field_name=True)
                 for name, side in (("station", books.station), ("signer", books.signer))}
        return {"units": self.units, "streams_lost": self.lost, "closed": books.unsettled_units == 0, **sides}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("station", "order", "recipe", "signed-order", "device-ca", "account"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("ca", "certificate", "key"):
        parser.add_argument(f"--{name}", help="PEM; all three for mutual TLS, none on loopback")
    parser.add_argument("units", nargs="+", metavar="NEST=SERIAL")
    arguments = parser.parse_args()
    if len({bool(arguments.ca), bool(arguments.certificate), bool(arguments.key)}) > 1:
        parser.error("--ca, --certificate and --key go together")
    with connect(arguments) as channel:
        client = Client(StationStub(channel), arguments.order, dict(unit.split("=", 1) for unit in arguments.units))
        client.open(arguments)
        client.make()
        summary = client.close()
    print(json.dumps(summary))
    return 0 if summary["closed"] else 1


try:
    sys.exit(main())
except grpc.RpcError as refusal:
    sys.exit(f"{refusal.code().name}: {refusal.details()}")
